"""One run of `virtualchain dev`: the chain, the app that is loaded, and what is done with them.

Lines of the prompt, requests of the form and changes of files come from different threads, and are worked on
one after the other.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from virtualchain.dev import lines
from virtualchain.dev.chain import Chain, script_of
from virtualchain.dev.databases import Databases
from virtualchain.dev.failures import START_AGAIN, Failure, of_load
from virtualchain.dev.files import Watched
from virtualchain.dev.log import block_outcomes, log, rows, run_sql
from virtualchain.dev.messages import Built, Load, Writing
from virtualchain.dev.outcomes import Outcome, failed, mistake, verdict_lines
from virtualchain.dev.process import Ended, WorkerProcess
from virtualchain.dev.project import Project
from virtualchain.engine.options import ignore
from virtualchain.errors import StoreError, UsageError, VirtualchainError
from virtualchain.model import Json
from virtualchain.testing import Tx
from virtualchain.writing.sending import BURN_SCRIPT

Show = Callable[[Outcome], None]
OnLoad = Callable[[str | None, str | None], None]


class Session:
    """The app of a project on its chain."""

    def __init__(
        self,
        project: Project,
        chain: Chain,
        databases: Databases,
        show: Show,
    ) -> None:
        """`show` gets what nobody has asked for, from any thread."""
        self._project = project
        self._chain = chain
        self._databases = databases
        self._show = show
        self.on_load: OnLoad = ignore
        """Called after each load that succeeds, and after a first one that does not: with what names the app,
        and with its database."""
        self._lock = threading.RLock()
        self._closes = False
        self._files = Watched(project.folder, project.kept, project.config)
        self._worker: WorkerProcess | None = None
        self._database: str | None = None
        self._app: Json = {}
        """The app that is loaded, as `described` has it."""
        self._halted: Failure | None = None
        """Why the app that is loaded takes no more blocks."""
        self._failure: Failure | None = None
        """Why the app as it is on disk is not the one that is loaded."""

    def close(self) -> None:
        """End the app's process, even if it is at work; what was sent stays in the chain's file."""
        self._closes = True
        with self._lock:
            self._forget_worker()
            self._databases.close()
            self._chain.close()

    def state(self) -> Json:
        """Return what the form shows: app, height, how many inputs are held, and what is wrong."""
        with self._lock:
            return {
                "app": self._app,
                "height": self._chain.height,
                "held": len(self._chain.held),
                "failure": None if self._failure is None else self._failure.as_dict(),
                "halted": None if self._halted is None else self._halted.as_dict(),
            }

    # Lines

    def run(self, line: str) -> Outcome | None:
        """Do what a line says, with the app as it is on disk; None if there is nothing to do."""
        try:
            request = lines.read_line(line)
        except UsageError as error:
            return mistake(line.split(maxsplit=1)[0], str(error))
        return None if request is None else self.do(request, line.split(maxsplit=1)[0])

    def do(self, request: lines.Request, word: str) -> Outcome:
        """Do what is asked for; `word` is what a mistake is reported of."""
        with self._lock:
            if self._files.have_changed() and not isinstance(request, lines.Plain):
                self._show(self._load())
            try:
                return self._do(request)
            except VirtualchainError as error:
                if isinstance(error, Ended):
                    self._forget_worker()
                return mistake(word, str(error))

    def _do(self, request: lines.Request) -> Outcome:  # noqa: PLR0911 - one for each kind
        match request:
            case lines.Input():
                return self._input(request)
            case lines.Mine(blocks=blocks):
                first = self._chain.height + 1
                return self._take("mine", first, self._chain.mine(blocks))
            case lines.Fork(depth=depth, blocks=blocks):
                first = self._chain.height - depth + 1
                return self._take("fork", first, self._chain.fork(depth, blocks))
            case lines.Sql(statement=statement):
                return run_sql(self._readable(), statement)
            case lines.Rows(table=table, filters=filters):
                return rows(self._readable(), str(self._app["name"]), table, filters)
            case lines.Log(what=what, limit=limit):
                return log(self._readable(), what, limit)
            case lines.Address(who=who):
                return Outcome("address", {"name": who.name, "address": who.address()}, [who.address()])
            case lines.Help(command=command):
                text = lines.explain(command)
                return Outcome("help", {"text": text}, text.splitlines())
            case lines.Plain(name=name):
                return self._plain(name)

    def _plain(self, name: str) -> Outcome:
        match name:
            case "drop":
                count = len(self._chain.held)
                self._chain.held.clear()
                return Outcome("drop", {"dropped": count}, [f"dropped {_counted(count, 'input')}"])
            case "reload":
                return self._load()
            case "reset":
                self._forget_worker()  # its node ends
                self._chain.reset()
                return self._load()
            case "status":
                return self._status()
        return Outcome(name)

    def _input(self, request: lines.Input) -> Outcome:
        """Send an input, hold it, or judge it only."""
        order, worker = request.order, self._able()
        payments = [(script_of(name), amount) for name, amount in order.to]
        payments += [] if order.burn is None else [(BURN_SCRIPT, order.burn)]
        outputs = [(amount, script) for script, amount in payments]
        writing = Writing(order.opcode, order.fields, order.payload, order.sender.script_pubkey, outputs)
        if request.way == "preview":
            verdict = self._ask(worker, "preview", writing, *self._chain.before())
            label = self._labels().get(verdict["opcode"], verdict["opcode"])
            shown = verdict_lines({**verdict, "opcode": label}, f"in block {self._chain.height + 1}")
            return Outcome("preview", verdict, shown)
        script = self._ask(worker, "write", writing)
        held = self._chain.hold(script, order.sender, payments)
        if request.way == "hold":
            count = len(self._chain.held)
            words = f"held: the next block has {_counted(count, 'input')} so far"
            return Outcome("hold", {"txid": held.tx.txid, "held": count}, [words])
        first = self._chain.height + 1
        return self._take("send", first, self._chain.send(held, 1 + int(self._app["confirmations"])))

    def _take(self, event: str, first: int, sent: Sequence[Tx]) -> Outcome:
        """Have the app take new blocks, the first of which holds what was sent; say what became of that."""
        last = self._chain.height
        mined = f"block {first}" if first == last else f"blocks {first} to {last}"
        worker = self._worker
        if worker is None or self._halted is not None:
            outcome = self._load()  # a fork may have undone what the app was halted for
            texts = [f"mined {mined}", *outcome.lines]
            return Outcome(
                event, {"first": first, "last": last, **outcome.data}, texts, is_bad=outcome.is_bad
            )
        built: Built = self._ask(worker, "build")
        texts = [_undone(built.undone)] if built.undone is not None else []
        data: Json = {"first": first, "last": last, "undone": built.undone, "inputs": [], "changes": []}
        if built.block_id >= first:
            txids = [tx.txid for tx in sent]
            outcomes, words = block_outcomes(
                worker.database, str(self._app["name"]), first, txids, self._labels()
            )
            data |= outcomes
            texts += words
        if not data["inputs"]:
            texts.append(f"mined {mined}")
        texts += [f"note: {remark}" for remark in built.remarks]
        if built.failure is not None:
            self._halted = built.failure
            return failed(built.failure, event, _halt_title(built.failure), texts)
        if built.block_id < last and event != "send":
            texts.append(
                f"the app has taken block {built.block_id}: it takes a block once "
                f"{_counted(self._app['confirmations'], 'other')} follow"
            )
        return Outcome(event, data, texts)

    def _status(self) -> Outcome:
        app, chain = self._app, self._chain
        texts: list[str] = []
        if self._failure is not None:
            texts += failed(self._failure, "status", "the app on disk is not loaded").lines
        if self._halted is not None:
            texts += failed(self._halted, "status", _halt_title(self._halted)).lines
        if app:
            texts.append(f"app {app['name']} {app['version']}; it takes")
            texts += [f"  {_signature(opcode)}" for opcode in app["opcodes"]]
        texts.append(f"chain: {chain.height} blocks, {_counted(len(chain.held), 'input')} held")
        texts.append(f"node: {chain.url}")
        data = {**self.state(), "node": chain.url, "kept": str(self._project.kept)}
        if self._database is not None:
            file = self._project.kept / "database"
            data["database_file"] = str(file)
            texts.append(f"database: export VIRTUALCHAIN_DATABASE_FILE={file}")
        return Outcome("status", data, texts)

    # Loads

    def load(self) -> Outcome:
        """Load the app as it is on disk; what was loaded before stays if that fails."""
        with self._lock:
            return self._load()

    def look(self) -> None:
        """Load the app if a file has changed and the change is complete; for a thread that watches."""
        if not self._files.have_settled():
            return
        with self._lock:
            if self._files.have_changed() and not self._closes:
                outcome = self._load()
                if not self._closes:
                    self._show(outcome)

    def _load(self) -> Outcome:
        self._files.begin()
        try:
            use = self._project.app()
        except UsageError as error:
            return self._not_loaded(of_load(error))
        failure: Failure | None
        built: Built | None = None
        try:
            database = self._databases.take()
        except VirtualchainError as error:
            return self._not_loaded(Failure(str(error), START_AGAIN))
        load = Load(use, database, self._chain.url, self._project.kept / "state")
        worker = WorkerProcess(load, self._is_wanted)
        try:
            loaded = worker.loaded()
            self._files.note(loaded.files)
            failure = loaded.failure
            if failure is None:
                built = self._ask(worker, "build")
                failure = built.failure
        except VirtualchainError as error:
            worker.end()
            if self._files.have_changed() and not self._closes:
                self._databases.prepare()
                return self._load()
            return self._not_loaded(Failure(str(error), "mend the app and save, or write `reload`"))
        except BaseException:
            worker.end()
            raise
        if built is None or (failure is not None and self._worker is not None and self._halted is None):
            worker.end()
            assert failure is not None, "it says why"
            return self._not_loaded(failure)
        self._forget_worker()
        self._worker, self._database = worker, worker.database
        self._app = loaded.app or {}
        self._halted, self._failure = failure, None
        try:
            self._project.tell_database(worker.database)
        except StoreError as error:
            built.remarks.append(str(error))
        self.on_load(use, worker.database)
        self._databases.prepare(keeps=worker.database)
        return self._loaded(built)

    def _loaded(self, built: Built) -> Outcome:
        app = self._app
        if built.failure is not None:
            return failed(built.failure, "halted", _halt_title(built.failure))
        data = {"app": app["name"], "version": app["version"], "block_id": built.block_id}
        texts = [f"loaded app {app['name']} {app['version']}; it has taken block {built.block_id}"]
        if app["first_block_id"] > self._chain.height + 1:
            first = app["first_block_id"]
            texts.append(
                f"note: the app's first block is {first}, and inputs before it are nothing to it: declare "
                f'first_block_id={{"mainnet": {first}, "regtest": 0}}'
            )
        texts += [f"note: {remark}" for remark in built.remarks]
        return Outcome("loaded", data, texts)

    def _not_loaded(self, failure: Failure) -> Outcome:
        self._failure = failure
        self._databases.prepare()
        if self._database is None:
            self.on_load(None, None)
        title = "the app cannot be loaded" if failure.block_id is None else _halt_title(failure)
        more = [] if self._worker is None else ["meanwhile the app is as it was loaded before"]
        return failed(failure, "failed", title, more)

    # Small things

    def _is_wanted(self) -> bool:
        """Return whether an app that is at work shall go on with it."""
        return not self._closes and not self._files.have_changed()

    def _ask(self, worker: WorkerProcess, method: str, *arguments: object) -> Any:  # noqa: ANN401 - as the method
        answer, read = worker.ask(method, *arguments)
        self._files.note(read)
        return answer

    def _forget_worker(self) -> None:
        if self._worker is not None:
            self._worker.end()
            self._worker = None

    def _able(self) -> WorkerProcess:
        """Return the process of an app that can judge inputs."""
        if self._worker is None:
            raise UsageError(f"no app is loaded: {'write `reload`' if self._failure is None else 'mend it'}")
        if self._halted is not None:
            raise UsageError(
                f"the app is halted before block {self._halted.block_id}: mend it and save, or undo the "
                "block with `fork`"
            )
        return self._worker

    def _readable(self) -> str:
        if self._database is None:
            raise UsageError("no app was loaded yet, so there is nothing to read")
        return self._database

    def _labels(self) -> dict[str, str]:
        """Return how opcodes are called: the byte, and the name of the handler."""
        return {
            each["opcode"]: f"{each['opcode']} ({each['names'][0]})"
            for each in self._app["opcodes"]
            if each["opcode"] is not None and each["names"]
        }


def _halt_title(failure: Failure) -> str:
    return f"the app is halted before block {failure.block_id}: {failure.callback} failed"


def _undone(undone: Json) -> str:
    return (
        f"fork after block {undone['fork_block_id']}: undone are {_counted(undone['blocks'], 'block')}, "
        f"{_counted(undone['ops'], 'op')} and {_counted(undone['rows'], 'change')} of rows"
    )


def _signature(opcode: Json) -> str:
    """Write what a `send` of an opcode takes."""
    fields = [
        f"[{field['name']}={field['type'] or '…'}]"
        if field["optional"]
        else f"{field['name']}={field['type'] or '…'}"
        for field in opcode["fields"]
    ]
    called = opcode["names"][0] if opcode["names"] else opcode["opcode"]
    words = " ".join(filter(None, ["send", called, *fields]))
    return words if opcode["writable"] else f"send --hex …  ({called} has no encode)"


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"
