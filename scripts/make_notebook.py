"""Writes examples/notebook/saetta.ipynb and runs it: python3 scripts/make_notebook.py, with nbclient, ipykernel and torch, and the command on PATH."""

import os
import tempfile

import nbclient
import nbformat

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PLACE = os.path.join(ROOT, "examples", "notebook", "saetta.ipynb")

CELLS = [
    "# Saetta in a notebook\n\nA sparse autoencoder is trained on rows that this notebook makes, while it makes them; then on a layer of a model.",
    """
import types
import torch
import saetta

torch.manual_seed(0)
directions = torch.nn.functional.normalize(torch.randn(128, 32), dim=1)

def rows(chunks=10**9):
    \"\"\"Sums of 3 of 128 known directions in 32 dimensions: float16 [4096, 32] each.\"\"\"
    for _ in range(chunks):
        which = torch.rand(4096, 128).topk(3).indices
        codes = torch.zeros(4096, 128).scatter_(1, which, 1 + torch.rand(4096, 3))
        yield (codes @ directions).half()
""",
    "`saetta.train` starts the command and streams the rows to it. Options are its flags. It ends when it has seen `tokens` rows.",
    """
run = saetta.train(rows(), latents=256, k=3, batch=1024, tokens=1_000_000, auxk=8, dead_tokens=50_000, log_every=100, eval_every=0, out="runs/rows")
for step in run:
    print(f"step {step.step:4}  FVU {step.fvu:.3f}  dead {step.dead}")
""",
    "`saetta.load` gives a `torch.nn.Module`. Which of the known directions did it find?",
    """
sae = saetta.load(run.path)
x = next(rows()).float()
with torch.no_grad():
    fvu = (x - sae(x)).pow(2).sum() / (x - x.mean(0)).pow(2).sum()
    nearest = (directions @ sae.W_dec.T).max(1).values
print(sae)
print(f"FVU {fvu:.3f} on new rows; {(nearest > 0.9).sum()} of 128 directions found")
""",
    "A page that shows what each latent does. The rows of a stream are gone, so it gets new ones.",
    """
run.report("features.html", data=rows(), rows=20_000, force=True)
""",
    "With a model: a hook on the named module gives its outputs, and the forward pass ends there. Any module that takes `input_ids` works, as those of transformers do.",
    """
class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = torch.nn.Linear(32, 32)

    def forward(self, x):
        return x + torch.relu(self.mix(x))

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.config = types.SimpleNamespace(bos_token_id=0)
        self.embed = torch.nn.Embedding(10_000, 32)
        self.places = torch.nn.Parameter(torch.randn(64, 32))
        self.layers = torch.nn.Sequential(Block(), Block(), Block())

    def forward(self, input_ids, attention_mask=None):
        return self.layers(self.embed(input_ids) + self.places)

model = Model()
batches = (torch.randint(10_000, (32, 64)) for _ in range(10**9))
run = saetta.train(saetta.from_hf(model, "layers.1", batches), latents=256, k=8, tokens=200_000, out="runs/model")
print(run.result.reason, run.result.tokens, "rows")
""",
    "What is wrong is an exception, in the command's words.",
    """
try:
    saetta.train(rows(), latents=256, k=512, tokens=1_000_000)
except saetta.UsageError as error:
    print(error)
""",
]


def notebook():
    cells = [(nbformat.v4.new_code_cell if i % 2 else nbformat.v4.new_markdown_cell)(text.strip("\n")) for i, text in enumerate(CELLS)]
    for i, cell in enumerate(cells):
        cell["id"] = f"cell-{i}"
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}})


def joined(outputs):
    """Text of one stream in one piece; which pieces it came in depends on the time."""
    kept = []
    for output in outputs:
        if kept and output.output_type == "stream" == kept[-1].output_type and output.name == kept[-1].name:
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


if __name__ == "__main__":
    made = notebook()
    with tempfile.TemporaryDirectory() as folder:
        nbclient.NotebookClient(made, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    for cell in made.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = joined(cell.outputs)
    made.metadata = {"kernelspec": made.metadata["kernelspec"], "language_info": {"name": "python"}}
    nbformat.write(made, PLACE)
    print(os.path.relpath(PLACE))
