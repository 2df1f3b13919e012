"""Each test is named after a sentence of the paper or of the thesis, whose section is told."""

from __future__ import annotations

import pytest
from raftnet import Net, Node

from fastkube._raft import CANDIDATE, FOLLOWER, LEADER, PRE_CANDIDATE, ProposalDropped, Raft
from fastkube._raftlog import (
    APPEND,
    APPEND_RESPONSE,
    HEARTBEAT,
    NORMAL,
    PRE_VOTE,
    VOTE,
    VOTE_RESPONSE,
    ConfState,
    Entry,
    HardState,
    Message,
)

FOUNDED = {"conf": ConfState((1, 2, 3)), "compacted": 1, "compacted_term": 1, "applied": 1}


def member(term: int = 1, vote: int = 0, terms: tuple[int, ...] = (), seed: int = 1) -> Raft:
    """Member 1 of three, with entries of these terms behind the founding snapshot."""
    entries = [Entry(each, index, NORMAL, b"%d" % index) for index, each in enumerate(terms, start=2)]
    return Raft(1, seed=seed, hard_state=HardState(term, vote, 1), entries=entries, **FOUNDED)  # type: ignore[arg-type]


def answers(raft: Raft) -> list[Message]:
    """What goes out once everything is durable."""
    found = []
    while raft.has_ready():
        ready = raft.ready()
        raft.advance(ready.number)
        found += [*ready.messages, *ready.responses]
    return found


# ---------------------------------------------------------------- §5.1 terms


@pytest.mark.parametrize("role", [FOLLOWER, PRE_CANDIDATE, CANDIDATE, LEADER])
def test_if_a_server_receives_a_request_with_a_higher_term_it_updates_its_own_and_becomes_follower(role: int) -> None:
    net = Net((1, 2, 3))
    raft = net.nodes[1].raft
    if role != FOLLOWER:
        raft.campaign()
    if role == LEADER:
        net.settle()
    elif role == CANDIDATE:
        net.nodes[1].run()
        net.deliver()
        net.nodes[2].run()
        net.deliver()
    assert raft.role == role
    raft.step(Message(APPEND, 1, 2, 9, log_term=1, index=1))
    assert (raft.term, raft.role, raft.lead) == (9, FOLLOWER, 2)


def test_a_request_with_a_stale_term_is_rejected_and_tells_the_new_one() -> None:
    raft = member(term=5)
    raft.step(Message(APPEND, 1, 2, 4, log_term=1, index=1, entries=(Entry(4, 2, NORMAL, b"x"),)))
    assert raft.log.last_index() == 1
    assert [(each.kind, each.term) for each in answers(raft)] == [(APPEND_RESPONSE, 5)]


# ---------------------------------------------------------------- §5.2 elections


def test_when_servers_start_up_they_begin_as_followers() -> None:
    assert member().role == FOLLOWER


def test_a_leader_sends_heartbeats_to_all_followers_in_every_interval() -> None:
    net = Net((1, 2, 3))
    raft = net.elect(1)
    for _ in range(3):
        raft.tick()
        sent = [each for each in answers(raft) if each.kind == HEARTBEAT]
        assert [each.to for each in sent] == [2, 3]


def test_a_follower_that_hears_nothing_over_its_election_timeout_begins_an_election() -> None:
    raft = member()
    for _ in range(raft.election_timeout - 1):
        raft.tick()
    assert raft.role == FOLLOWER
    raft.tick()
    assert raft.role == PRE_CANDIDATE
    assert {each.to for each in answers(raft) if each.kind == PRE_VOTE} == {2, 3}


def test_a_heartbeat_begins_the_election_timeout_again() -> None:
    raft = member(term=2)
    for _ in range(3):
        for _ in range(9):
            raft.tick()
        raft.step(Message(HEARTBEAT, 1, 2, 2))
    assert raft.role == FOLLOWER


def test_election_timeouts_are_chosen_randomly_from_a_fixed_interval() -> None:
    drawn = {member(seed=seed).election_timeout for seed in range(300)}
    assert drawn == set(range(10, 20))


def test_a_candidate_increments_its_term_and_votes_for_itself() -> None:
    net = Net((1, 2, 3))
    raft = net.nodes[1].raft
    net.isolate(3)
    raft.campaign()
    net.nodes[1].run()
    net.deliver()
    net.nodes[2].run()
    net.deliver()
    net.nodes[1].run()
    assert (raft.term, raft.vote, raft.role) == (2, 1, CANDIDATE)
    assert net.nodes[1].disk.hard == HardState(2, 1, 1)


@pytest.mark.parametrize(
    ("members", "grants", "role"),
    [(1, 0, LEADER), (3, 0, CANDIDATE), (3, 1, LEADER), (5, 1, CANDIDATE), (5, 2, LEADER), (5, 4, LEADER)],
)
def test_a_candidate_wins_if_it_receives_votes_from_a_majority_of_the_full_cluster(
    members: int, grants: int, role: int
) -> None:
    ids = tuple(range(1, members + 1))
    raft = Raft(1, seed=1, conf=ConfState(ids), hard_state=HardState(1, 0, 1), compacted=1, compacted_term=1, applied=1)
    raft.campaign(transferred=True)  # without a pre-vote
    answers(raft)
    for voter in ids[1 : grants + 1]:
        raft.step(Message(VOTE_RESPONSE, 1, voter, 2))
    assert raft.role == role


def test_each_server_votes_for_at_most_one_candidate_in_a_term() -> None:
    raft = member()
    raft.step(Message(VOTE, 1, 2, 2, log_term=1, index=1))
    raft.step(Message(VOTE, 1, 3, 2, log_term=1, index=1))
    raft.step(Message(VOTE, 1, 2, 2, log_term=1, index=1))  # asked again, the answer is the same
    assert [(each.to, each.reject) for each in answers(raft)] == [(2, False), (3, True), (2, False)]


def test_a_vote_outlives_a_crash() -> None:
    raft = member(term=2, vote=3)
    raft.step(Message(VOTE, 1, 2, 2, log_term=1, index=1))
    assert [each.reject for each in answers(raft)] == [True]


def test_a_vote_is_not_answered_before_it_is_durable() -> None:
    raft = member()
    raft.step(Message(VOTE, 1, 2, 2, log_term=1, index=1))
    ready = raft.ready()
    assert ready.must_sync
    assert ready.hard_state == HardState(2, 2, 1)
    assert not ready.messages
    assert [each.kind for each in ready.responses] == [VOTE_RESPONSE]


@pytest.mark.parametrize("kind", [APPEND, HEARTBEAT])
def test_a_candidate_recognizes_a_leader_of_its_term_and_returns_to_follower(kind: int) -> None:
    raft = member()
    raft.campaign(transferred=True)
    raft.step(Message(kind, 1, 2, 2, log_term=1, index=1))
    assert (raft.role, raft.lead) == (FOLLOWER, 2)


def test_split_votes_are_resolved_by_another_election() -> None:
    net = Net((1, 2))
    for each in (1, 2):
        net.nodes[each].raft.campaign(transferred=True)
    net.settle()
    assert not net.leader()
    net.tick(40)
    assert net.leader()


# ---------------------------------------------------------------- §5.3 log replication


def test_the_leader_appends_a_command_and_sends_it_in_parallel_to_each_follower() -> None:
    net = Net((1, 2, 3))
    raft = net.elect(1)
    index = raft.propose([b"x"])
    ready = raft.ready()
    assert [(entry.term, entry.index, entry.data) for entry in ready.entries] == [(2, index, b"x")]
    assert [(each.to, each.entries) for each in ready.messages] == [
        (2, tuple(ready.entries)),
        (3, tuple(ready.entries)),
    ]


def test_an_entry_is_committed_once_the_leader_has_replicated_it_on_a_majority() -> None:
    for others, committed in ((0, False), (1, False), (2, True), (4, True)):
        net = Net((1, 2, 3, 4, 5))
        raft = net.elect(1)
        for each in range(2 + others, 6):
            net.isolate(each)
        index = raft.propose([b"x"])
        net.settle()
        assert (raft.log.committed >= index) == committed


def test_committing_an_entry_commits_all_preceding_ones_of_previous_leaders() -> None:
    net = Net((1, 2, 3))
    net.elect(1)
    net.isolate(1)
    net.nodes[1].raft.propose([b"lost"])
    net.tick(40)
    net.heal()
    net.tick(5)
    leader = net.leader()
    assert leader is not None and leader.id != 1
    leader.raft.propose([b"kept"])
    net.settle()
    assert [node.disk.state for node in net.nodes.values()] == [leader.disk.state] * 3
    assert [data for _, data in leader.disk.state] == [b"kept"]


def test_a_follower_applies_once_it_learns_that_an_entry_is_committed_and_in_order() -> None:
    node = Node(1, Net((1, 2, 3)).nodes[1].disk)
    entries = tuple(Entry(2, index, NORMAL, b"%d" % index) for index in (2, 3))
    node.raft.step(Message(APPEND, 1, 2, 2, log_term=1, index=1, entries=entries, commit=1))
    node.run()
    assert node.disk.state == []
    node.raft.step(Message(APPEND, 1, 2, 2, log_term=2, index=3, commit=3))
    node.run()
    assert node.disk.state == [(2, b"2"), (3, b"3")]


@pytest.mark.parametrize(
    ("term", "index", "refused"), [(1, 1, False), (2, 2, False), (2, 3, False), (3, 3, True), (3, 4, True)]
)
def test_a_follower_refuses_entries_if_it_does_not_find_the_preceding_one(term: int, index: int, refused: bool) -> None:
    raft = member(term=3, terms=(2, 2))
    raft.step(Message(APPEND, 1, 2, 3, log_term=term, index=index))
    assert [each.reject for each in answers(raft)] == [refused]


@pytest.mark.parametrize(
    ("log_term", "index", "new", "terms"),
    [
        (3, 3, (3,), [1, 2, 3, 3]),  # appended
        (2, 2, (3, 4), [1, 2, 3, 4]),  # what is there is kept
        (1, 1, (4,), [1, 4]),  # a conflict: the entry and all that follow are deleted
        (1, 1, (2,), [1, 2, 3]),  # no conflict: nothing is deleted, the message may be an old one
    ],
)
def test_if_an_existing_entry_conflicts_with_a_new_one_it_and_all_that_follow_are_deleted(
    log_term: int, index: int, new: tuple[int, ...], terms: list[int]
) -> None:
    raft = member(term=4, terms=(2, 3))
    entries = tuple(Entry(term, number, NORMAL, b"%d" % number) for number, term in enumerate(new, start=index + 1))
    raft.step(Message(APPEND, 1, 2, 4, log_term=log_term, index=index, entries=entries))
    assert [raft.log.term(each) for each in range(1, raft.log.last_index() + 1)] == terms


# Figure 7: the leader of term 8, and what followers may have.
LEADERS = (1, 1, 1, 4, 4, 5, 5, 6, 6, 6)


@pytest.mark.parametrize(
    "followers",
    [
        (1, 1, 1, 4, 4, 5, 5, 6, 6),
        (1, 1, 1, 4),
        (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6),
        (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7),
        (1, 1, 1, 4, 4, 4, 4),
        (1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3),
    ],
    ids="abcdef",
)
def test_the_leader_brings_followers_logs_into_consistency_with_its_own(followers: tuple[int, ...]) -> None:
    net = Net((1, 2, 3))
    for each, terms in ((1, LEADERS), (2, followers), (3, LEADERS)):
        disk = net.nodes[each].disk
        disk.entries = [Entry(term, index, NORMAL, b"%d.%d" % (term, index)) for index, term in enumerate(terms, 2)]
        disk.hard = HardState(7, 0, 1)
        net.nodes[each].start()
    net.elect(1)
    logs = {each: net.nodes[each].raft.log.slice(2, 99, 1 << 60) for each in (1, 2)}
    assert logs[1] == logs[2]
    assert [entry.term for entry in logs[1]] == [*LEADERS, 8]


def test_a_leader_never_overwrites_or_deletes_entries_in_its_log() -> None:
    net = Net((1, 2, 3))
    raft = net.elect(1)
    raft.propose([b"a", b"b"])
    before = raft.log.slice(2, 99, 1 << 60)
    for kind in (APPEND, HEARTBEAT, VOTE, PRE_VOTE):
        raft.step(Message(kind, 1, 2, raft.term - 1, log_term=1, index=1, entries=(Entry(1, 2, NORMAL, b"x"),)))
    assert raft.log.slice(2, 99, 1 << 60) == before


# ---------------------------------------------------------------- §5.4 safety


@pytest.mark.parametrize(
    ("log_term", "index", "granted"),
    [(2, 3, True), (2, 4, True), (3, 2, True), (2, 2, False), (1, 9, False)],
)
def test_the_voter_denies_its_vote_if_its_own_log_is_more_up_to_date(log_term: int, index: int, granted: bool) -> None:
    raft = member(term=3, terms=(2, 2))
    raft.step(Message(VOTE, 1, 2, 4, log_term=log_term, index=index))
    assert [not each.reject for each in answers(raft)] == [granted]


def test_only_entries_of_the_leaders_current_term_are_committed_by_counting_replicas() -> None:
    """§5.4.2, figure 8."""
    net = Net((1, 2, 3))
    disk = net.nodes[1].disk
    disk.entries, disk.hard = [Entry(2, 2, NORMAL, b"old")], HardState(2, 0, 1)
    net.nodes[1].start()
    raft = net.nodes[1].raft
    raft.campaign(transferred=True)
    answers(raft)
    raft.step(Message(VOTE_RESPONSE, 1, 2, 3))
    answers(raft)
    assert raft.role == LEADER
    raft.step(Message(APPEND_RESPONSE, 1, 2, 3, index=2))  # a majority has the entry of term 2
    assert raft.log.committed == 1
    raft.step(Message(APPEND_RESPONSE, 1, 2, 3, index=3))  # and now one of term 3
    assert raft.log.committed == 3


def test_the_leader_counts_its_own_log_only_as_far_as_it_is_durable() -> None:
    """Thesis 10.2.1."""
    net = Net((1, 2, 3))
    raft = net.elect(1)
    index = raft.propose([b"x"])
    ready = raft.ready()
    raft.step(Message(APPEND_RESPONSE, 1, 2, raft.term, index=index))
    assert raft.log.committed == index - 1
    raft.advance(ready.number)
    assert raft.log.committed == index


# ---------------------------------------------------------------- §6, and chapters 4, 6 and 9 of the thesis


def test_a_server_disregards_vote_requests_when_it_believes_a_current_leader_exists() -> None:
    net = Net((1, 2, 3))
    net.elect(1)
    raft = net.nodes[2].raft
    before = raft.term
    raft.step(Message(VOTE, 2, 3, 9, log_term=9, index=99))
    assert (raft.term, raft.vote, answers(raft)) == (before, 1, [])


def test_a_leader_steps_down_if_an_election_timeout_elapses_without_a_round_of_heartbeats_to_a_majority() -> None:
    net = Net((1, 2, 3))
    raft = net.elect(1)
    net.isolate(1)
    for _ in range(20):
        raft.tick()
    assert raft.role != LEADER


def test_a_read_is_current_though_another_leader_may_have_been_elected() -> None:
    """Thesis 6.4: the deposed leader, which does not know it, never confirms a read."""
    net = Net((1, 2, 3))
    old = net.elect(1)
    net.isolate(1)
    for each in (2, 3):
        for _ in range(10):
            net.nodes[each].raft.tick()
    net.tick(9)
    new = net.leader()
    assert new is not None and new.id != 1
    old.read_index(b"stale")
    new.raft.read_index(b"fresh")
    net.settle()
    assert net.nodes[1].reads == []
    assert [state.context for state in new.reads] == [b"fresh"]


def test_a_lease_is_not_used_after_the_leader_has_asked_another_to_take_over() -> None:
    net = Net((1, 2, 3))
    raft = net.elect(1)
    net.tick(1)
    assert raft.has_lease()
    net.isolate(1)
    raft.transfer(2)
    for _ in range(11):
        raft.tick()  # the transfer is given up; TimeoutNow may still be under way
    assert raft.transferee == 0
    assert not raft.has_lease()


def test_if_the_leader_is_not_part_of_the_new_configuration_it_steps_down_once_that_is_committed() -> None:
    from fastkube._raftconf import ConfChange

    net = Net((1, 2, 3))
    raft = net.elect(1)
    raft.propose_change(ConfChange((("r", 1),)))
    assert raft.role == LEADER
    net.settle()
    assert raft.role == FOLLOWER
    with pytest.raises(ProposalDropped):
        raft.propose([b"x"])


def test_a_configuration_without_the_snapshot_that_it_came_from_is_refused() -> None:
    with pytest.raises(ValueError, match="snapshot"):
        Raft(1, seed=1, conf=ConfState((1,)))
