/** A chart as a file: SVG with its colours, or PNG drawn from it. Nothing is asked of anybody. */

const SCALE = 3;
const EDGE = 8;

/** Buttons that save the chart of the figure that they are in; `name` says what it shows. */
export function Save({ name }: { readonly name: string }) {
  const save = (event: MouseEvent, write: (chart: SVGSVGElement) => Promise<Blob>, ending: string) => {
    const chart = (event.currentTarget as Element).closest("figure")?.querySelector("svg");
    if (chart)
      void write(chart).then((blob) => {
        const link = document.createElement("a");
        link.href = URL.createObjectURL(blob);
        link.download = `${name.slice(0, 40).replace(/\W+/g, "-").toLowerCase()}.${ending}`;
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
      });
  };
  return (
    <span class="save">
      <button type="button" aria-label="Save the chart as SVG" onClick={(event) => save(event, svgOf, "svg")}>
        SVG
      </button>
      <button type="button" aria-label="Save the chart as PNG" onClick={(event) => save(event, pngOf, "png")}>
        PNG
      </button>
    </span>
  );
}

/** The chart with the colours that the page gives it. */
async function svgOf(chart: SVGSVGElement): Promise<Blob> {
  const copy = chart.cloneNode(true) as SVGSVGElement;
  const [from, to] = [chart, copy].map((each) => each.querySelectorAll("rect"));
  for (const [i, rect] of Array.from(to!).entries()) {
    const { fill, stroke } = getComputedStyle(from![i]!);
    rect.setAttribute("fill", fill);
    rect.setAttribute("stroke", stroke);
    rect.setAttribute("stroke-width", "0.5");
    rect.removeAttribute("class");
  }
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  const { width, height } = chart.viewBox.baseVal;
  copy.setAttribute("width", String(width * 2));
  copy.setAttribute("height", String(height * 2));
  return new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" });
}

/** The same in pixels. The page's policy allows no image of its own making, so bars are drawn. */
function pngOf(chart: SVGSVGElement): Promise<Blob> {
  const { width, height } = chart.viewBox.baseVal;
  const canvas = document.createElement("canvas");
  canvas.width = SCALE * width + 2 * EDGE;
  canvas.height = SCALE * height + 2 * EDGE;
  const pen = canvas.getContext("2d");
  if (pen === null) return Promise.reject(new Error("This browser draws nothing."));
  pen.fillStyle = getComputedStyle(chart.closest(".explorer") ?? chart).backgroundColor;
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.translate(EDGE, EDGE);
  pen.scale(SCALE, SCALE);
  for (const rect of chart.querySelectorAll("rect")) {
    const { fill, stroke } = getComputedStyle(rect);
    const [x, y, w, h] = [rect.x, rect.y, rect.width, rect.height].map((each) => each.baseVal.value);
    pen.fillStyle = fill;
    pen.fillRect(x!, y!, w!, h!);
    pen.strokeStyle = stroke;
    pen.lineWidth = 0.3;
    pen.strokeRect(x!, y!, w!, h!);
  }
  return new Promise((resolve, reject) => {
    canvas.toBlob(
      (blob) => (blob === null ? reject(new Error("This browser draws nothing.")) : resolve(blob)),
      "image/png",
    );
  });
}
