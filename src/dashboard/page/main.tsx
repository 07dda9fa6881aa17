import { render } from "preact";
import { App, Features } from "./app.tsx";
import "./parts.css";
import "./charts.css";
import "./compare.css";
import "./base.css"; // last: it has the rules for small screens

const [, run] = /^\/features\/([^/]+)$/.exec(location.pathname) ?? [];
render(run === undefined ? <App /> : <Features run={decodeURIComponent(run)} />, document.getElementById("app")!);
