"""agent-lightning's APO at its default sizes, on the questions of the run file `qa`.

Run by an interpreter that has agentlightning[apo]: `python agentlightning_apo.py --url URL --questions DIR`.
The endpoint measures the time. APO writes its critiques and edits in its own words, so that it makes other templates
than Headrace, and its number of calls is its own.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import agentlightning as agl  # type: ignore[import-not-found]
from openai import AsyncOpenAI, OpenAI

MODEL = "scripted-1"


def tasks(path: Path) -> list[dict[str, Any]]:
    """JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def main() -> None:
    """One optimisation."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--runners", type=int, default=8)
    asked = parser.parse_args()
    url = asked.url

    @agl.rollout  # type: ignore[untyped-decorator]
    def agent(task: dict[str, Any], prompt_template: agl.PromptTemplate) -> float:
        text = prompt_template.template.replace("{question}", task["question"])
        said = OpenAI(base_url=url, api_key="none").chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": text}]
        )
        return float((said.choices[0].message.content or "").strip() == str(task["answer"]).strip())

    algorithm = agl.APO(AsyncOpenAI(base_url=url, api_key="none"), gradient_model=MODEL, apply_edit_model=MODEL)
    seed = agl.PromptTemplate(template="Answer the question.\n{question}", engine="f-string")
    trainer = agl.Trainer(
        algorithm=algorithm,
        n_runners=asked.runners,
        initial_resources={"prompt_template": seed},
        adapter=agl.TraceToMessages(),
    )
    trainer.fit(
        agent,
        train_dataset=tasks(asked.questions / "training.jsonl"),
        val_dataset=tasks(asked.questions / "validation.jsonl"),
    )
    print(json.dumps({"best": algorithm.get_best_prompt().template}))


if __name__ == "__main__":
    main()
