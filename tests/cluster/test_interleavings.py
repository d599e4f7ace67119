"""Any interleaving of fetch, push, repeat, death, restart, snapshot and journal, against a list of applied gradients."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.typing import NDArray
from tests.conformance.cases import OF_THE_GRADIENT, RULES, hyper
from tests.conformance.tolerances import ULPS, ulps

from steprule import reference
from steprule.cluster import Client, KeptShard, Partition, Push, Rows, Shard, Version, next_number

SHAPES = {"weight": (3, 2), "table": (4, 2), "bias": ()}
PARTITION = Partition(SHAPES, 3, sparse=["table"])
START = np.random.default_rng(0).standard_normal(PARTITION.size)
EVERY = 3
REPLICAS = 3


class Plain:
    """What a shard should be: the gradients that it has applied, in their order, and which of them are kept."""

    def __init__(self) -> None:
        self.applied: list[NDArray[np.float64]] = []
        self.seen: dict[int, int] = {}
        self.kept: tuple[int, dict[int, int]] = (0, {})
        self.known: dict[int, Version] = {}
        """What each replica that lives was last told of."""
        self.lost = 0

    def keep(self) -> None:
        self.kept = (len(self.applied), dict(self.seen))

    def die(self, life: int) -> None:
        count, seen = self.kept
        known = [version.updates for version in self.known.values() if version.life == life]
        self.lost += max([0, *(updates - count for updates in known)])
        self.applied, self.seen = self.applied[:count], dict(seen)


class Machine(RuleBasedStateMachine):
    """A cluster whose messages arrive when, and as often as, hypothesis likes."""

    @initialize(
        name=st.sampled_from(sorted(OF_THE_GRADIENT)),
        journal=st.booleans(),
        n_fetch=st.integers(1, 3),
        n_push=st.integers(1, 3),
    )
    def begin(self, name: str, journal: bool, n_fetch: int, n_push: int) -> None:
        self.name, self.journal = name, journal
        self.folder = tempfile.TemporaryDirectory()
        self.rng = np.random.default_rng(1)
        self.every = {"n_fetch": n_fetch, "n_push": n_push, "local_lr": 0.1}
        self.shards = [self.made(number) for number in range(PARTITION.shards)]
        self.plain = [Plain() for _ in self.shards]
        self.clients = [Client(replica, PARTITION, dtype=np.float64, **self.every) for replica in range(REPLICAS)]
        self.sent: list[tuple[int, Push, NDArray[np.float64]]] = []
        self.accrued = [np.zeros(PARTITION.size) for _ in self.clients]

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            for shard in self.shards:
                shard.close()
            self.folder.cleanup()

    def made(self, number: int) -> KeptShard:
        shard = Shard(RULES[self.name], START[PARTITION.slices[number]], PARTITION.pieces[number], **hyper(self.name))
        return KeptShard(shard, Path(self.folder.name), f"shard-{number}", every=EVERY, journal=self.journal)

    @rule(replica=st.integers(0, REPLICAS - 1), rows=st.lists(st.integers(0, 3), max_size=4))
    def step(self, replica: int, rows: list[int]) -> None:
        """One step of a replica; what it pushes is under way."""
        client = self.clients[replica]
        if client.wants_fetch:
            for number, shard in enumerate(self.shards):
                client.take(number, shard.fetch())
                self.told(replica, number)
        dense = self.rng.standard_normal(PARTITION.dense_size)
        table = Rows(np.array(rows, np.int64), self.rng.standard_normal((len(rows), 2)))
        whole = np.zeros(PARTITION.size)
        views = PARTITION.views(whole)
        for name, part in PARTITION.dense_views(dense).items():
            views[name][...] = part
        np.add.at(views["table"], table.numbers, table.values)
        self.accrued[replica] += whole
        for number, push in enumerate(client.give(dense, {"table": table})):
            self.sent.append((number, push, self.accrued[replica][PARTITION.slices[number]].copy()))
            if number == PARTITION.shards - 1:
                self.accrued[replica][:] = 0

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), again=st.booleans())
    def arrive(self, data: st.DataObject, again: bool) -> None:
        """Some push arrives, and may do so once more: its receipt may be lost."""
        place = data.draw(st.integers(0, len(self.sent) - 1))
        number, push, gradient = self.sent[place] if again else self.sent.pop(place)
        shard, plain = self.shards[number], self.plain[number]
        known, life = shard.shard.version, shard.shard.version.life
        receipt = shard.push(push)
        last = plain.seen.get(push.replica, -1)
        assert receipt.outcome == ("applied" if push.number > last else "repeat" if push.number == last else "old")
        if push.fetched.life == life:
            assert receipt.staleness == known.updates - push.fetched.updates
        assert receipt.staleness >= 0
        if receipt.outcome == "applied":
            plain.applied.append(gradient)
            plain.seen[push.replica] = push.number
            if self.journal or shard.since_snapshot == 0:
                plain.keep()
        if not again:
            self.clients[push.replica].confirm(number, receipt)
            self.told(push.replica, number)

    def told(self, replica: int, number: int) -> None:
        self.plain[number].known[replica] = self.shards[number].shard.version

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def arrive_broken(self, data: st.DataObject) -> None:
        """A push of which a number was spoilt changes nothing."""
        number, push, _ = data.draw(st.sampled_from(self.sent))
        assume(push.dense.size)
        dense = push.dense.copy()
        dense[0] = data.draw(st.sampled_from([np.nan, np.inf]))
        outcome = self.shards[number].push(dataclasses.replace(push, dense=dense)).outcome
        assert outcome == ("refused" if push.number > self.plain[number].seen.get(push.replica, -1) else outcome)
        assert outcome != "applied"

    @rule(number=st.integers(0, PARTITION.shards - 1))
    def snapshot(self, number: int) -> None:
        assert self.shards[number].snapshot()
        self.plain[number].keep()

    @rule(number=st.integers(0, PARTITION.shards - 1))
    def shard_dies(self, number: int) -> None:
        """The process of a shard ends without a word, and another one takes its place."""
        plain, life = self.plain[number], self.shards[number].shard.version.life
        self.shards[number].close()
        plain.die(life)
        self.shards[number] = self.made(number)
        assert self.shards[number].shard.version == Version(life + 1, len(plain.applied))
        dense = np.zeros(PARTITION.dense_slices[number].stop - PARTITION.dense_slices[number].start)
        for replica, known in plain.known.items():
            # What it pushes next tells the shard what it knew; of this number nothing is applied.
            assert self.shards[number].push(Push(replica, -1, known, known, dense)).outcome in ("repeat", "old")
        assert self.shards[number].shard.lost == plain.lost
        assert plain.lost == 0 or not self.journal

    @rule(replica=st.integers(0, REPLICAS - 1))
    def replica_dies(self, replica: int) -> None:
        """A replica ends and starts again, while pushes of its earlier start are still under way."""
        first = next_number(shard.last_number(replica) for shard in self.shards)
        self.clients[replica] = Client(replica, PARTITION, dtype=np.float64, first_number=first, **self.every)
        self.accrued[replica][:] = 0
        for plain in self.plain:
            plain.known.pop(replica, None)

    @invariant()
    def shards_are_what_was_applied(self) -> None:
        if not hasattr(self, "shards"):
            return
        for number, (shard, plain) in enumerate(zip(self.shards, self.plain, strict=True)):
            x = START[PARTITION.slices[number]]
            state, largest = reference.init(RULES[self.name], x), np.abs(x)
            for gradient in plain.applied:
                x, state = reference.step(RULES[self.name], x, gradient, state, **hyper(self.name))
                largest = np.maximum(largest, np.abs(x))
            assert shard.shard.version.updates == len(plain.applied)
            apart = ulps(shard.shard.parameters, x, "float64", beside=largest)
            assert apart.max() <= ULPS["dense run"].amount * (len(plain.applied) + 2)


TestMachine = Machine.TestCase
TestMachine.settings = settings(derandomize=True, max_examples=40, stateful_step_count=30)
