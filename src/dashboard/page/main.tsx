import { render } from "preact";
import { App, Ask, Features } from "./app.tsx";
import "./parts.css";
import "./charts.css";
import "./compare.css";
import "./base.css"; // last: it has the rules for small screens

const [, kind, id] = /^\/(features|ask)\/([^/]+)$/.exec(location.pathname) ?? [];
const run = id === undefined ? "" : decodeURIComponent(id);
const page = kind === "features" ? <Features run={run} /> : kind === "ask" ? <Ask run={run} /> : <App />;
render(page, document.getElementById("app")!);
