"""Names for latents from a language model, and answers by which the names are scored.

    saetta label export runs/first --data acts.h5 --out passages.json
    python3 -m saetta.interpret passages.json --out answers.json --url http://localhost:8000/v1 --model NAME
    saetta label import runs/first answers.json

Talks to any server that has the chat completions of OpenAI's API (vLLM, llama.cpp, Ollama, OpenRouter,
OpenAI). The key, where one is needed, is read from the environment variable OPENAI_API_KEY (or that of
--key-from). Needs Python alone. The prompts are those of EleutherAI's delphi in kind: the strongest
passages with the firing tokens between << and >> for the name; then, by the name alone, of five
passages at a time whether the latent fires (detection) and whether the marked tokens fit (fuzzing).

What was answered so far is written after each latent; with the same --out it continues from there.
"""
import argparse
import json
import os
import re
import sys
import tempfile
import time
import urllib.error
import urllib.request

AT_ONCE = 5
MARKED = 0.3

NAMING = (
    "You study one latent of a sparse autoencoder of a language model. You are given passages in which it fires "
    "strongly; the tokens on which it fires are between << and >>. Say in a short phrase what they have in common. "
    "Be specific, and do not mention the marks. End with one line: [NAME]: the phrase"
)
DETECTING = (
    "You are given the description of a latent of a language model, and numbered passages. Say of each passage "
    "whether it contains what the description says: 1 for yes, 0 for no. Answer with nothing but a list, such as "
    "[1, 0, 0, 1, 0]."
)
FUZZING = (
    "You are given the description of a latent of a language model, and numbered passages in which some tokens are "
    "between << and >>. Say of each passage whether the marked tokens are what the description says: 1 for yes, 0 "
    "for no. Answer with nothing but a list, such as [1, 0, 0, 1, 0]."
)


def marked_text(tokens, marked):
    """The text, with each run of marked tokens between << and >>."""
    text, inside = "", False
    for i, token in enumerate(tokens):
        if (i in marked) != inside:
            text += ">>" if inside else "<<"
            inside = not inside
        text += token
    return text + (">>" if inside else "")


def naming_prompt(latent):
    passages = []
    for shown in latent["explain"]:
        most = max(shown["values"], default=0)
        marked = {i for i, value in enumerate(shown["values"]) if most > 0 and value > MARKED * most}
        passages.append(marked_text(shown["tokens"], marked))
    lines = [f"Passage {i + 1}: {text}" for i, text in enumerate(passages)]
    if latent.get("promoted"):
        lines.append("Tokens that it makes likelier next: " + ", ".join(map(repr, latent["promoted"])))
    return "\n".join(lines)


def name_in(reply):
    """The phrase after the last [NAME]:, or the last line."""
    found = re.findall(r"\[NAME\]:?[ \t]*([^\n]+)", reply, re.IGNORECASE)
    lines = [line.strip() for line in reply.splitlines() if line.strip()]
    text = found[-1] if found else (lines[-1] if lines else "")
    return text.strip().strip('"').strip()[:200]


def answers_in(reply, count):
    """`count` answers, or None for each where the reply has no such list."""
    for inner in reversed(re.findall(r"\[([01,\s]*)\]", reply)):
        digits = re.findall(r"[01]", inner)
        if len(digits) == count:
            return [digit == "1" for digit in digits]
    return [None] * count


class Endpoint:
    """Chat completions of a server. Waits and asks again where it is busy or away."""

    def __init__(self, url, model, key=None, tries=5, wait=2.0, timeout=120.0):
        self.url = url.rstrip("/") + "/chat/completions"
        self.model, self.key, self.tries, self.wait, self.timeout = model, key, tries, wait, timeout

    def ask(self, system, user):
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        body = json.dumps({"model": self.model, "messages": messages, "temperature": 0}).encode()
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        for attempt in range(self.tries):
            last = attempt + 1 == self.tries
            try:
                request = urllib.request.Request(self.url, body, headers)
                with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                    return json.load(answer)["choices"][0]["message"]["content"] or ""
            except urllib.error.HTTPError as error:
                if last or (error.code != 429 and error.code < 500):
                    raise SystemExit(f"saetta.interpret: {self.url}: the server answered with {error.code}") from error
            except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
                if last:
                    raise SystemExit(f"saetta.interpret: {self.url}: cannot be reached; check --url") from error
            except (ValueError, KeyError, IndexError, TypeError) as error:
                raise SystemExit(f"saetta.interpret: {self.url}: the answer is no chat completion") from error
            time.sleep(self.wait * 2**attempt)


def test(endpoint, latent, scoring, system):
    items = latent[scoring]
    for first in range(0, len(items), AT_ONCE):
        some = items[first : first + AT_ONCE]
        texts = [marked_text(item["tokens"], set(item["marked"])) for item in some]
        lines = [f"Description: {latent['name']}", *(f"Passage {i + 1}: {text}" for i, text in enumerate(texts))]
        for item, answer in zip(some, answers_in(endpoint.ask(system, "\n".join(lines)), len(some))):
            item["answer"] = answer


def interpret(endpoint, latent, rename=False):
    """Names the latent, where it has no name or `rename`, and has the name tested."""
    if rename or not latent.get("name"):
        latent["name"] = name_in(endpoint.ask(NAMING, naming_prompt(latent)))
    if latent["name"]:
        test(endpoint, latent, "detection", DETECTING)
        test(endpoint, latent, "fuzzing", FUZZING)


def write_whole(path, value):
    folder = os.path.dirname(os.path.abspath(path))
    with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".tmp", delete=False, encoding="utf-8") as file:
        json.dump(value, file)
    os.replace(file.name, path)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python3 -m saetta.interpret", description=__doc__.splitlines()[0])
    parser.add_argument("passages", help="the file that saetta label export wrote")
    parser.add_argument("--out", required=True, help="the file to write, for saetta label import")
    parser.add_argument("--url", required=True, help="the server, such as http://localhost:8000/v1")
    parser.add_argument("--model", required=True, help="the model's name there")
    parser.add_argument("--key-from", default="OPENAI_API_KEY", help="environment variable that holds the key")
    parser.add_argument("--rename", action="store_true", help="also name latents that have a name")
    options = parser.parse_args(argv)
    with open(options.passages, encoding="utf-8") as file:
        work = json.load(file)
    if work.get("format") != "saetta-interpretation":
        raise SystemExit(f"saetta.interpret: {options.passages}: is no file of saetta label export")
    done = {}
    if os.path.exists(options.out):
        with open(options.out, encoding="utf-8") as file:
            done = {latent["latent"]: latent for latent in json.load(file)["latents"]}
    wait = float(os.environ.get("SAETTA_INTERPRET_WAIT", "2"))
    endpoint = Endpoint(options.url, options.model, os.environ.get(options.key_from), wait=wait)
    latents, work["latents"] = work["latents"], []
    for number, latent in enumerate(latents):
        if latent["latent"] in done:
            latent = done[latent["latent"]]
        else:
            interpret(endpoint, latent, options.rename)
        work["latents"].append(latent)
        write_whole(options.out, work)
        print(f"{number + 1}/{len(latents)}  latent {latent['latent']}: {latent['name']}", file=sys.stderr)


if __name__ == "__main__":
    main()
