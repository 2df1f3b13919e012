"""Files of objects, and what of an object goes into one, as pure functions."""

from __future__ import annotations

import copy
import gzip
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastkube.api.documents import DocumentError, Writer, read_files
from fastkube.api.patch import merge_patch
from fastkube.recording import objects
from fastkube.recording.objects import Change, diff
from fastkube.recording.replay import parse_speed

Object = dict[str, Any]


def obj(kind: str, name: str = "a", namespace: str = "", **rest: Any) -> Object:
    version = rest.pop("apiVersion", "v1")
    metadata: Object = {"name": name, **rest.pop("metadata", {})}
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **rest}


OBJECTS = [obj("Namespace", "n"), obj("ConfigMap", namespace="n", data={"yes": "no", "multi": "a\nb\n"})]


@pytest.mark.parametrize("name", ["a.yaml", "a.yml.gz", "a.jsonl", "a.json.gz", "snapshot"])
def test_a_file_gives_back_what_was_written(tmp_path: Path, name: str) -> None:
    writer = Writer(tmp_path / name)
    for each in OBJECTS:
        writer.write(each)
    writer.close()
    assert read_files([tmp_path / name]) == OBJECTS


@pytest.mark.parametrize("name", ["a.yaml.gz", "a.jsonl.gz", "a.jsonl"])
def test_what_was_flushed_is_read_although_the_file_was_not_closed(tmp_path: Path, name: str) -> None:
    writer = Writer(tmp_path / name)
    for each in OBJECTS:
        writer.write(each)
    writer.flush()
    assert read_files([tmp_path / name]) == OBJECTS
    writer.close()


def test_a_last_line_that_was_cut_is_left_out_and_written_over(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"kind":"A","apiVersion":"v1"}\n{"kind":"B"}\n{"kin')
    assert [each["kind"] for each in read_files([file])] == ["A", "B"]
    writer = Writer(file, append=True)
    writer.write(obj("C"))
    writer.close()
    assert [each["kind"] for each in read_files([file])] == ["A", "B", "C"]


def test_a_folder_is_read_in_the_order_of_names_and_lists_are_opened(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "2.yaml").write_text(
        "kind: ConfigMap\napiVersion: v1\n---\n# nothing\n---\nkind: Pod\napiVersion: v1\n"
    )
    (tmp_path / "a.json").write_text('{"kind":"PodList","apiVersion":"v1","items":[{"metadata":{"name":"x"}}]}')
    (tmp_path / "c.yaml.gz").write_bytes(gzip.compress(b"kind: Node\napiVersion: v1\n"))
    (tmp_path / "notes.txt").write_text("no manifest")
    found = read_files([tmp_path])
    assert [each["kind"] for each in found] == ["Pod", "ConfigMap", "Pod", "Node"]
    assert found[0] == {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}


@pytest.mark.parametrize(
    ("text", "words"),
    [("a: [", "a.yaml: error converting YAML"), ("- 1", "an object with a kind"), ('{"kind":"A"}\n{\n{}', "line 2")],
)
def test_what_is_no_object_is_refused_with_the_files_name(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(DocumentError, match=words):
        read_files([file])


def test_only_json_lines_can_be_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON lines"):
        Writer(tmp_path / "a.yaml", append=True)


def test_a_private_file_is_its_owners_alone(tmp_path: Path) -> None:
    Writer(tmp_path / "a", private=True).close()
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("each", "secrets", "words"),
    [
        (obj("ConfigMap", namespace="n"), False, ""),
        (obj("ConfigMap", "kube-root-ca.crt", "n"), False, "certificates"),
        (obj("Secret", namespace="n", type="Opaque"), False, "--secrets"),
        (obj("Secret", namespace="n", type="Opaque"), True, ""),
        (obj("Secret", namespace="n", type="kubernetes.io/service-account-token"), True, "own key"),
        (obj("Service", "kubernetes", "default"), False, "address"),
        (obj("Service", "kubernetes", "n"), False, ""),
        (
            obj("APIService", metadata={"labels": {"kube-aggregator.kubernetes.io/automanaged": "onstart"}}),
            False,
            "itself",
        ),
    ],
)
def test_what_belongs_to_one_cluster_is_left_out(each: Object, secrets: bool, words: str) -> None:
    why = objects.left_out(each, secrets=secrets)
    assert words in why
    assert bool(why) is bool(words)


def test_owners_come_after_what_they_would_make_themselves() -> None:
    kinds = ["Deployment", "ReplicaSet", "Pod", "Job", "Widget", "Node", "Namespace", "CustomResourceDefinition"]
    assert sorted(kinds, key=objects.rank) == kinds[::-1]
    assert objects.rank("ResourceQuota") > objects.rank("Pod")


def test_a_file_has_nothing_that_only_a_server_could_know() -> None:
    metadata = {"uid": "u", "resourceVersion": "5", "generation": 2, "managedFields": [{}], "creationTimestamp": "t"}
    each = obj("Pod", namespace="n", metadata=metadata, spec={"a": None, "b": [{"c": None, "d": 1}]}, status={"x": 1})
    kept = objects.without_nulls(objects.cleaned(each))
    assert kept["metadata"] == {"name": "a", "namespace": "n", "uid": "u", "creationTimestamp": "t"}
    assert kept["spec"] == {"b": [{"d": 1}]}
    body, status = objects.for_create(kept)
    assert body == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a", "namespace": "n"},
        "spec": {"b": [{"d": 1}]},
    }
    assert status == {"x": 1}


def test_a_volume_waits_for_its_claim_by_name() -> None:
    claim = {"namespace": "n", "name": "c", "uid": "old", "resourceVersion": "7"}
    body, _ = objects.for_create(obj("PersistentVolume", spec={"claimRef": claim, "capacity": {}}))
    assert body["spec"] == {"claimRef": {"namespace": "n", "name": "c"}, "capacity": {}}


def test_a_job_is_held_and_gets_a_selector_of_its_own() -> None:
    labels = {"batch.kubernetes.io/controller-uid": "u", "controller-uid": "u", "job-name": "a", "app": "x"}
    template = {"metadata": {"labels": labels}, "spec": {}}
    job = obj("Job", spec={"selector": {"matchLabels": labels}, "template": template})
    assert objects.held_job(job)["spec"] == {
        "template": {"metadata": {"labels": {"app": "x"}}, "spec": {}},
        "suspend": True,
    }
    manual = obj("Job", spec={"manualSelector": True, "selector": {}, "template": template})
    assert objects.held_job(manual)["spec"] == {**manual["spec"], "suspend": True}


def test_old_uids_are_replaced_wherever_they_stand() -> None:
    value = {"ownerReferences": [{"uid": "old"}], "labels": {"controller-uid": "old"}, "n": 1, "other": "older"}
    assert objects.renamed(value, {"old": "new"}) == {
        "ownerReferences": [{"uid": "new"}], "labels": {"controller-uid": "new"}, "n": 1, "other": "older"
    }  # fmt: skip


values = st.recursive(
    st.booleans() | st.integers(0, 3) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from("abc"), values), st.dictionaries(st.sampled_from("abc"), values))
def test_a_difference_makes_the_one_of_the_other(old: Object, new: Object) -> None:
    assert merge_patch(copy.deepcopy(old), diff(old, new)) == new


@pytest.mark.parametrize(
    ("patch", "strategic"),
    [
        ({"spec": {"replicas": 2}}, False),
        ({"spec": {"$setElementOrder/containers": [{"name": "a"}]}}, True),
        ({"spec": {"x": [{"$patch": "delete"}]}}, True),
    ],
)
def test_directives_tell_a_strategic_patch(patch: Object, strategic: bool) -> None:
    assert objects.has_directives(patch) is strategic


def test_a_file_is_state_and_changes_in_the_order_of_time() -> None:
    def change(nanoseconds: int) -> Object:
        resource = {"group": "apps", "version": "v1", "resource": "deployments"}
        target = {"name": "a", "namespace": "n"}
        about = {"apiVersion": objects.PATCH_API_VERSION, "kind": "ResourcePatch"}
        what = {"resource": resource, "target": target, "method": "patch", "template": {"spec": {}}}
        return {**about, **what, "durationNanosecond": nanoseconds}

    state, changes = objects.split([OBJECTS[0], change(2_000_000_000), change(1_500_000_000)])
    assert state == [OBJECTS[0]]
    assert [each.at_s for each in changes] == [1.5, 2.0]
    assert changes[0].to_object() == change(1_500_000_000)
    with pytest.raises(ValueError, match="method 'walk'"):
        Change.from_object({**change(1), "method": "walk"})
    with pytest.raises(ValueError, match="ResourcePatch"):
        Change.from_object({"kind": "ResourcePatch"})


@pytest.mark.parametrize(("text", "speed"), [("10x", 10.0), ("0.5", 0.5), ("max", float("inf"))])
def test_speed(text: str, speed: float) -> None:
    assert parse_speed(text) == speed


@pytest.mark.parametrize("text", ["", "0x", "-1x", "fast", "nan"])
def test_what_is_no_speed_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="speed"):
        parse_speed(text)
