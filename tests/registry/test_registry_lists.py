"""Lists: which state is shown, pages of one snapshot, tokens that outlive it, selectors."""

import pytest
from clusters import Cluster, config_map, refused

from fastkube.errors import ApiError


async def fill(cluster: Cluster, count: int = 7) -> None:
    for number in range(count):
        labels = {"parity": "odd" if number % 2 else "even"}
        await cluster.create("configmaps", config_map(f"c{number}", labels=labels), namespace="kube-public")


def names(cluster: Cluster, **query: str) -> list[str]:
    return cluster.names(
        "configmaps", {key.replace("_", ""): value for key, value in query.items()}, namespace="kube-public"
    )


async def test_pages_show_one_snapshot(cluster: Cluster):
    await fill(cluster)
    items, page = cluster.list("configmaps", {"limit": "3"}, namespace="kube-public")
    assert (len(items), page.remaining) == (3, 4)
    await cluster.delete("configmaps", "c4", namespace="kube-public")
    await cluster.create("configmaps", config_map("c3b"), namespace="kube-public")
    rest, last = cluster.list("configmaps", {"limit": "10", "continue": page.continue_token}, namespace="kube-public")
    assert [obj["metadata"]["name"] for obj in rest] == ["c3", "c4", "c5", "c6"]
    assert (last.continue_token, last.remaining, last.revision) == ("", None, page.revision)


async def test_a_limit_of_exactly_the_count_has_no_more(cluster: Cluster):
    await fill(cluster, 2)
    _, page = cluster.list("configmaps", {"limit": "2"}, namespace="kube-public")
    assert (page.continue_token, page.remaining) == ("", None)


async def test_filtered_pages_are_full_and_tell_no_remaining_count(cluster: Cluster):
    await fill(cluster)
    query = {"limit": "2", "labelSelector": "parity=even"}
    items, page = cluster.list("configmaps", query, namespace="kube-public")
    assert [obj["metadata"]["name"] for obj in items] == ["c0", "c2"]
    assert page.remaining is None
    more = cluster.names("configmaps", {**query, "continue": page.continue_token}, namespace="kube-public")
    assert more == ["c4", "c6"]


async def test_an_expired_token_comes_with_a_fresh_one(cluster: Cluster):
    await fill(cluster)
    _, page = cluster.list("configmaps", {"limit": "3"}, namespace="kube-public")
    await cluster.create("configmaps", config_map("c9"), namespace="kube-public")
    await cluster.store.compact(cluster.store.revision)
    with pytest.raises(ApiError) as caught:
        cluster.list("configmaps", {"limit": "3", "continue": page.continue_token}, namespace="kube-public")
    assert (caught.value.code, caught.value.reason) == (410, "Expired")
    fresh = caught.value.to_status()["metadata"]["continue"]
    rest = cluster.names("configmaps", {"continue": fresh}, namespace="kube-public")
    assert rest == ["c3", "c4", "c5", "c6", "c9"]


@pytest.mark.parametrize(
    "token", ["x", "e30", "bm90IGpzb24", "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MCwic3RhcnQiOiJhIn0"]
)
async def test_tokens_that_nobody_gave_out_are_refused(cluster: Cluster, token: str):
    async with refused(400, "BadRequest", "continue key is not valid"):
        cluster.list("configmaps", {"continue": token})


@pytest.mark.parametrize(
    ("token", "problem"),
    [
        ("a!", "illegal base64 data at input byte 1"),
        ("abc", "invalid character 'i' looking for beginning of value"),
        ("eyJ2IjoibWV0YS5rOHMuaW8vdjEi", "unexpected end of JSON input"),
        ("W10", "server does not recognize this encoded version"),
    ],
)
async def test_bad_tokens_are_told_in_gos_words(cluster: Cluster, token: str, problem: str):
    async with refused(400, "BadRequest", f"continue key is not valid: {problem}"):
        cluster.list("configmaps", {"continue": token})


async def test_exact_and_not_older_than(cluster: Cluster):
    first = await cluster.create("configmaps", config_map("a"), namespace="kube-public")
    version = first["metadata"]["resourceVersion"]
    await cluster.create("configmaps", config_map("b"), namespace="kube-public")
    assert names(cluster, resourceVersion=version, resourceVersionMatch="Exact") == ["a"]
    assert names(cluster, resourceVersion=version, limit="5") == ["a"]
    assert names(cluster, resourceVersion=version) == ["a", "b"]
    assert names(cluster, resourceVersion=version, resourceVersionMatch="NotOlderThan") == ["a", "b"]
    assert names(cluster, resourceVersion="0", limit="1") == ["a", "b"]


async def test_the_future_is_a_timeout_that_names_itself(cluster: Cluster):
    async with refused(504, "Timeout", "Too large resource version: 99999, current: ") as caught:
        cluster.list("configmaps", {"resourceVersion": "99999"})
    assert caught.value.details["causes"][0]["reason"] == "ResourceVersionTooLarge"
    async with refused(504, "Timeout"):
        cluster.registry.get(cluster.call("get", "configmaps", "a", query={"resourceVersion": "99999"}))


async def test_compacted_states_are_gone(cluster: Cluster):
    first = await cluster.create("configmaps", config_map("a"))
    await cluster.create("configmaps", config_map("b"))
    await cluster.store.compact(cluster.store.revision)
    query = {"resourceVersion": first["metadata"]["resourceVersion"], "resourceVersionMatch": "Exact"}
    async with refused(410, "Expired", "The resourceVersion for the provided list is too old."):
        cluster.list("configmaps", query)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"resourceVersionMatch": "Exact"}, "is forbidden unless resourceVersion is provided"),
        ({"resourceVersion": "0", "resourceVersionMatch": "Exact"}, 'is forbidden for resourceVersion "0"'),
        ({"resourceVersion": "1", "resourceVersionMatch": "Odd"}, "Unsupported value"),
        ({"sendInitialEvents": "true"}, "sendInitialEvents is forbidden for list"),
    ],
)
async def test_options_that_contradict_each_other_are_refused(cluster: Cluster, query: dict[str, str], message: str):
    async with refused(422, "Invalid", message):
        cluster.list("configmaps", query)


async def test_field_selectors_on_names_and_namespaces(cluster: Cluster):
    await fill(cluster, 3)
    assert names(cluster, fieldSelector="metadata.name=c1") == ["c1"]
    assert names(cluster, fieldSelector="metadata.name!=c1") == ["c0", "c2"]
    assert names(cluster, fieldSelector="metadata.namespace=other") == []
    assert "c1" in cluster.names("configmaps", {"fieldSelector": "metadata.name=c1"}, namespace="")
