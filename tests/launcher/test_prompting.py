"""[prompts], [endpoints.*], [scripted]: what is resolved, and each mistake as one message before a process starts."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from actors.prompts.preflight import reach
from actors.prompts.settings import share
from broker.errors import RequestError
from launcher.plan import check_text, make_plan
from launcher.prompting import check_files
from launcher.reading import load, resume
from launcher.runfile import RunFile

TASK = {"question": "How many days are 3 weeks and 3 days?", "answer": "24"}
RUN = """
[prompts]
template = "Answer. {question}"
training = "mine.jsonl"
validation = "mine.jsonl"
[endpoints.answer]
url = "scripted"
model = "scripted-1"
[policies]
names = ["answerer"]
[learner]
algorithm = "textual_gradients"
"""


def mine(home: Path, *overrides: str, text: str = RUN, tasks: str = json.dumps(TASK)) -> RunFile:
    (home / "mine.toml").write_text(text)
    (home / "mine.jsonl").write_text(tasks)
    return load(home / "mine.toml", overrides, seed=1)


def test_what_prompts_imply_is_filled_in(tmp_path: Path) -> None:
    run = mine(tmp_path)
    assert run.actors.rollout == "answers"
    assert run.prompts is not None
    assert run.prompts.training == str(tmp_path / "mine.jsonl")
    assert run.scripted is not None
    assert [role.name for role in make_plan(run, None).roles][:3] == [
        "tracker",
        "endpoint-scripted",
        "learner-answerer",
    ]
    check_files(run)
    told = check_text(make_plan(run, None))
    assert "  answer: scripted-1 of a simulation, 16 calls at once, 8 or more for each actor" in told
    assert "  answerer: a prompt template, textual_gradients" in told
    other = mine(tmp_path, "endpoints.answer.url=https://example.org/v1")
    assert other.scripted is None
    assert "endpoint-scripted" not in make_plan(other, None).kinds()


def test_what_a_search_cannot_do_is_told_before_a_process_starts(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"learner\.algorithm: 'ppo' improves no prompt"):
        mine(tmp_path, text=RUN.partition("[learner]")[0])
    for override, told in (("beem=3", r"beem: .*known are"), ("beam=0", "beam"), ('race="quick"', "race")):
        with pytest.raises(RequestError, match=rf"learner\.settings\.{told}"):
            check_files(mine(tmp_path, f"learner.settings.{override}"))
    with pytest.raises(RequestError, match=r"learner\.settings\.race: gepa scores"):
        check_files(mine(tmp_path, "learner.algorithm=gepa", "learner.settings.race=ucb"))


def test_the_resolved_run_file_stands_on_its_own(tmp_path: Path) -> None:
    (tmp_path / "template.txt").write_text("From a file.\n{question}\n")
    run = mine(tmp_path, "prompts.template=", "prompts.template_file=template.txt")
    assert run.prompts is not None
    assert (run.prompts.template, run.prompts.template_file) == ("From a file.\n{question}\n", None)
    (tmp_path / "kept").mkdir()
    run.write(tmp_path / "kept" / "run.toml")
    (tmp_path / "template.txt").unlink()
    assert resume(tmp_path / "kept" / "run.toml") == (run, {})


def test_a_resumed_run_may_have_its_endpoint_elsewhere_but_asks_the_same(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    stored = tmp_path / "kept" / "run.toml"
    mine(tmp_path).write(stored)
    moved, changed = resume(stored, ["endpoints.answer.url=https://h/v1", "endpoints.answer.key_env=MY_KEY"])
    assert moved.endpoints is not None
    assert set(changed) == {"endpoints.answer.url", "endpoints.answer.key_env"}
    for refused in ("endpoints.answer.model=other", "prompts.template=Other {question}", "prompts.grader=mine:grade"):
        with pytest.raises(RequestError, match="start a new run for"):
            resume(stored, ["endpoints.answer.url=https://h/v1", refused])


def test_the_shipped_run_finds_its_questions_wherever_it_is_kept(tmp_path: Path) -> None:
    run = load("qa", ["prompts.training_items=8", "prompts.validation_items=8"], seed=1)
    check_files(run)
    run.write(tmp_path / "run.toml")
    again = load(tmp_path / "run.toml")
    assert again.prompts == run.prompts
    check_files(again)


def test_questions_that_changed_between_two_lives_are_told(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    mine(tmp_path).write(tmp_path / "kept" / "run.toml")
    again, changed = resume(tmp_path / "kept" / "run.toml")
    check_files(again)
    assert not changed
    (tmp_path / "mine.jsonl").write_text(json.dumps({**TASK, "answer": "25"}))
    changed_since, _ = resume(tmp_path / "kept" / "run.toml")
    with pytest.raises(RequestError, match=r"prompts\.training: .*mine\.jsonl: has changed since the run began"):
        check_files(changed_since)


def test_the_launcher_needs_no_client_to_check_them() -> None:
    code = "import sys, launcher.reading, launcher.prompting, actors.prompts.preflight\n"
    code += "print([m for m in ('torch', 'numpy', 'openai', 'aiohttp', 'tenacity') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"


def test_what_is_not_installed_is_told() -> None:
    code = "import sys; sys.modules['tenacity'] = None\n"
    code += "from launcher.prompting import check_files; from launcher.reading import load; check_files(load('qa'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "RequestError: prompts: needs the package 'tenacity'; pip install 'headrace[prompts]'" in done.stderr


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["prompts.template=Answer."], "prompts.template: has no placeholder; write {question}"),
        (["prompts.template="], "prompts.template: is missing: give it, or template_file"),
        (["prompts.template_file=none.txt", "prompts.template="], "prompts.template_file: there is no file "),
        (["prompts.template_file=mine.jsonl"], "prompts.template_file: and prompts.template are two templates"),
        (["prompts.training=none.jsonl"], "prompts.training: there is no file "),
        (["prompts.validation="], "prompts.validation: is missing"),
        (["prompts.agent=mine"], "prompts.agent: 'mine' is not known; your own is \"package.module:name\""),
        (["prompts.templat=x"], "prompts.templat: unknown key; did you mean prompts.template?"),
        (["prompts.rollout_seconds=58"], "tracker.lease_seconds: must be 63 or more"),
        (["endpoints="], "endpoints.answer: is missing"),
        (["endpoints.answr={}"], "endpoints.answr: unknown key; did you mean endpoints.answer?"),
        (["endpoints.answer.model=gpt"], "endpoints.answer.model: the simulation has one model, 'scripted-1'"),
        (["endpoints.answer.modle=x"], "endpoints.answer.modle: unknown key; did you mean endpoints.answer.model?"),
        (["endpoints.answer.url=ftp://x"], "endpoints.answer.url: is no URL: write "),
        (["endpoints.answer.url=http://h:99999/v1"], "endpoints.answer.url: is no URL: write "),
        (["endpoints.answer.url=https://h/v1/chat/completions"], "must end before /chat/completions"),
        (["endpoints.answer.url=https://me:sk-1234@h/v1"], "may hold no user, password or query"),
        (["endpoints.answer.key_env=sk-1234"], "endpoints.answer.key_env: is no name of an environment variable"),
        (["endpoints.answer.key=sk-1234"], "endpoints.answer.key: unknown key; did you mean endpoints.answer.key_env?"),
        (["endpoints.answer.key_env=A", "endpoints.answer.key_file=b"], "both say where the key is; give one"),
        (["endpoints.answer.concurrency=1"], "endpoints.answer.concurrency: must be 2 or more (actors.processes)"),
        (["endpoints.edit.url=scripted", "endpoints.edit.model=scripted-1", "endpoints.edit.concurrency=5"],
         "endpoints.edit.concurrency: must be 16, as endpoints.answer has it"),
        (["endpoints.answer.options.extra_headers={Authorization='sk-1234'}"], "extra_headers: may not be an option"),
        (["scripted.rate_429=1.5"], "scripted.rate_429: should be less than or equal to 1"),
        (["environment.id=CartPole-v1"], "prompts: is for runs without an [environment]"),
        (["prompts="], "actors.rollout"),
    ],
)  # fmt: skip
def test_what_cannot_be(tmp_path: Path, overrides: list[str], told: str) -> None:
    text = RUN if "prompts=" not in overrides else RUN + '[actors]\nrollout = "answers"\n'
    with pytest.raises(RequestError) as caught:
        mine(tmp_path, *overrides, text=text)
    message = str(caught.value)
    assert told in message
    assert "sk-1234" not in message


@pytest.mark.parametrize(
    ("tasks", "told"),
    [
        ('{"question": "q", "answer": "a"}\n{"question": "q"}\n', "mine.jsonl:2: the field 'answer' is missing"),
        ('{"answer": "a"}\n{"question": "q", "answer": "a"}\n', "mine.jsonl:1: the field 'question' is missing"),
        ("\n", "mine.jsonl: holds no tasks"),
        ("q;a\n", "mine.jsonl:1: not JSON"),
    ],
)  # fmt: skip
def test_a_wrong_dataset_is_told_with_file_line_and_field(tmp_path: Path, tasks: str, told: str) -> None:
    with pytest.raises(RequestError) as caught:
        check_files(mine(tmp_path, tasks=tasks))
    assert str(caught.value).startswith("prompts.training: ")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (r"Solve {question}. End with \boxed{answer}.", "prompts.template: shows {answer}, the field of the solution"),
        (r"{question} as \frac{1}{2}", "prompts.template: the brace '{' in line 1"),
        ("{{question}}", "prompts.template: has no placeholder"),
        ("{question}" + 32_000 * "x", "prompts.template: it has 32,010 characters"),
    ],
)
def test_a_template_that_cannot_be_is_named(tmp_path: Path, template: str, message: str) -> None:
    (tmp_path / "template.txt").write_text(template, encoding="utf-8-sig")
    with pytest.raises(RequestError) as caught:
        mine(tmp_path, text=RUN.replace('template = "Answer. {question}"', 'template_file = "template.txt"'))
    assert message in str(caught.value)


def test_a_template_may_name_what_no_grader_compares(tmp_path: Path) -> None:
    own = ("prompts.grader=mine:grade", "prompts.solution=gold")
    check_files(mine(tmp_path, "prompts.template=Judge {answer}", *own))
    with pytest.raises(RequestError, match=r"prompts\.template: has \{x\}, which no task of mine\.jsonl fills"):
        check_files(mine(tmp_path, "prompts.template={question} {x}"))


def test_a_budget_that_could_never_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"learner\.settings\.money: no endpoint has a price"):
        check_files(mine(tmp_path, "learner.settings.money=1.0"))
    check_files(mine(tmp_path, "learner.settings.money=1.0", "endpoints.answer.price_out=0.5"))


def test_a_grader_of_ones_own_asks_for_no_answer(tmp_path: Path) -> None:
    check_files(mine(tmp_path, "prompts.grader=mine:grade", tasks='{"question": "q"}'))


def test_where_keys_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(RequestError, match=r"endpoints\.answer\.key_env: the environment variable NO_SUCH_KEY is not"):
        check_files(mine(tmp_path, "endpoints.answer.key_env=NO_SUCH_KEY"))
    with pytest.raises(RequestError, match=r"endpoints\.answer\.key_file: .*key.txt: cannot be read: No such file"):
        check_files(mine(tmp_path, "endpoints.answer.key_file=key.txt"))
    (tmp_path / "key.txt").write_text("\n")
    with pytest.raises(RequestError, match="is empty"):
        check_files(mine(tmp_path, "endpoints.answer.key_file=key.txt"))
    (tmp_path / "key.txt").write_text("sk-secret and more")
    with pytest.raises(RequestError, match="a key is one word") as caught:
        check_files(mine(tmp_path, "endpoints.answer.key_file=key.txt"))
    assert "secret" not in str(caught.value)
    (tmp_path / "key.txt").write_text("sk-secret\n")
    run = mine(tmp_path, "endpoints.answer.key_file=key.txt")
    check_files(run)
    assert "secret" not in run.to_toml()


def test_shares_are_the_whole() -> None:
    for concurrency in (4, 16, 63, 64, 65):
        for runners in (1, 3, 4):
            shares = [share(concurrency, runners, index) for index in range(runners)]
            assert sum(shares) == concurrency
            assert max(shares) - min(shares) <= 1


@contextmanager
def answering(status: int, **headers: str) -> Iterator[tuple[str, list[str]]]:
    """An HTTP server that gives every request this answer; what it was sent as authorization."""
    heard: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.headers.get("Authorization", ""))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1", heard
        finally:
            server.shutdown()
            thread.join()


def looked(url: str, **more: str) -> None:
    reach({"answer": {"url": url, "model": "m", **more}, "critique": None, "edit": {"url": "scripted"}}, timeout=2)


def test_endpoints_are_looked_at_before_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret")
    for status in (200, 404, 500):
        with answering(status) as (url, heard):
            looked(url, key_env="MY_KEY")
            assert heard == ["Bearer sk-secret"]
    with answering(401) as (url, _), pytest.raises(RequestError) as caught:
        looked(url, key_env="MY_KEY")
    assert str(caught.value) == f"endpoints.answer.key_env (MY_KEY): the endpoint {url} refuses the key (401)"


def test_a_key_does_not_follow_a_redirect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret")
    with answering(200) as (elsewhere, heard), answering(302, Location=elsewhere) as (url, _):
        with pytest.raises(RequestError, match=rf"answer\.url: {url} redirects to {elsewhere}; write that"):
            looked(url, key_env="MY_KEY")
        assert heard == []


def test_endpoints_that_are_not_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(RequestError, match=r"endpoints\.answer\.url: http://127.* cannot be reached: .*refused"):
            looked(f"http://127.0.0.1:{taken.getsockname()[1]}/v1")
        taken.listen()
        with pytest.raises(RequestError, match="cannot be reached: timed out"):
            reach({"answer": {"url": f"http://127.0.0.1:{taken.getsockname()[1]}/v1"}}, timeout=0.2)
    with pytest.raises(RequestError, match="cannot be reached"):
        looked("http://no-such-host.invalid/v1")
