"""How a Deployment's rollout goes: its status, and the conditions Available, Progressing and ReplicaFailure."""

from __future__ import annotations

from fastkube.clock import rfc3339
from fastkube.controllers.common import Object, Objects, condition, seconds
from fastkube.controllers.deployment_parts import counted, limits, replicas_of

AVAILABLE, PROGRESSING, REPLICA_FAILURE = "Available", "Progressing", "ReplicaFailure"
NO_LIMIT = 2**31 - 1


class Progress:
    """The conditions of one attempt, begun with those that the Deployment has."""

    def __init__(self, deployment: Object, now: float) -> None:
        status = deployment.get("status") or {}
        self.deployment = deployment
        self.conditions: Objects = list(status.get("conditions") or ())
        self.collisions = status.get("collisionCount")
        self._now = now
        self._replicas = replicas_of(deployment)
        self._limits = limits(deployment)

    def status(self, new: Object | None, everything: Objects) -> Object:
        """The counts of all ReplicaSets, and the condition Available that follows; what is zero is left out."""
        available = sum(counted(rs, "availableReplicas") for rs in everything)
        terminating = [rs["status"].get("terminatingReplicas") for rs in everything if rs.get("status")]
        counts = {
            "observedGeneration": self.deployment["metadata"].get("generation", 0),
            "replicas": sum(counted(rs, "replicas") for rs in everything),
            "updatedReplicas": counted(new, "replicas") if new is not None else 0,
            "readyReplicas": sum(counted(rs, "readyReplicas") for rs in everything),
            "availableReplicas": available,
            "unavailableReplicas": max(0, sum(replicas_of(rs) for rs in everything) - available),
        }
        status: Object = {key: value for key, value in counts.items() if value}
        if any(count is not None for count in terminating):
            status["terminatingReplicas"] = sum(count or 0 for count in terminating)
        if self.collisions is not None:
            status["collisionCount"] = self.collisions
        if available >= self._replicas - self._limits.unavailable:
            self.set(AVAILABLE, "True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        else:
            message = "Deployment does not have minimum availability."
            self.set(AVAILABLE, "False", "MinimumReplicasUnavailable", message)
        return status

    def is_complete(self, status: Object) -> bool:
        wanted = self._replicas
        fields = ("updatedReplicas", "replicas", "availableReplicas")
        return all(status.get(field, 0) == wanted for field in fields)

    def judge(self, status: Object, new: Object | None, *, made_new: bool) -> None:
        """The condition Progressing: complete, going on, or out of time."""
        if not self.has_deadline():
            self._drop(PROGRESSING)
            return
        was = condition(self.deployment, PROGRESSING)
        if (
            was is not None
            and was.get("reason") == "NewReplicaSetAvailable"
            and status.get("replicas", 0) == status.get("updatedReplicas", 0)
            and not made_new
        ):
            return
        name = self.deployment["metadata"]["name"]
        what = f'ReplicaSet "{new["metadata"]["name"]}"' if new is not None else f'Deployment "{name}"'
        if self.is_complete(status):
            self.set(PROGRESSING, "True", "NewReplicaSetAvailable", f"{what} has successfully progressed.")
        elif self._has_progressed(status):
            self._renew(f"{what} is progressing.")
        elif self._is_out_of_time():
            self.set(PROGRESSING, "False", "ProgressDeadlineExceeded", f"{what} has timed out progressing.")

    def _has_progressed(self, status: Object) -> bool:
        was = self.deployment.get("status") or {}

        def grew(field: str) -> bool:
            return int(status.get(field, 0)) > int(was.get(field, 0))

        def old_pods(counts: Object) -> int:
            return int(counts.get("replicas", 0)) - int(counts.get("updatedReplicas", 0))

        more = grew("updatedReplicas") or grew("readyReplicas") or grew("availableReplicas")
        return more or old_pods(status) < old_pods(was)

    def _renew(self, message: str) -> None:
        """ReplicaSetUpdated with a new lastUpdateTime each time: the deadline counts from the last progress."""
        current = self.get(PROGRESSING)
        renewed = self._made_now(PROGRESSING, "True", "ReplicaSetUpdated", message)
        if current is not None and current["status"] == "True":
            renewed["lastTransitionTime"] = current["lastTransitionTime"]
        self._drop(PROGRESSING)
        self.conditions.append(renewed)

    def _deadline_s(self) -> int:
        return int(self.deployment["spec"].get("progressDeadlineSeconds") or 0)

    def has_deadline(self) -> bool:
        limit = self.deployment["spec"].get("progressDeadlineSeconds")
        return limit is not None and limit != NO_LIMIT

    def _is_out_of_time(self) -> bool:
        current = self.get(PROGRESSING)
        if current is None or current["reason"] == "NewReplicaSetAvailable":
            return False
        if current["reason"] == "ProgressDeadlineExceeded":
            return True
        return seconds(current["lastUpdateTime"]) + self._deadline_s() < self._now

    def deadline_check(self, status: Object) -> float | None:
        """Seconds until progress has to be looked at again, though nothing may change until then."""
        current = self.get(PROGRESSING)
        if not self.has_deadline() or current is None or self.is_complete(status):
            return None
        if current["reason"] in ("ProgressDeadlineExceeded", "NewReplicaSetAvailable"):
            return None
        return max(1.0, seconds(current["lastUpdateTime"]) + self._deadline_s() - self._now + 1)

    def copy_failure(self, replicasets: Objects) -> None:
        """ReplicaFailure of the first ReplicaSet that has it."""
        for rs in replicasets:
            failure = condition(rs, REPLICA_FAILURE)
            if failure is not None:
                self.set(REPLICA_FAILURE, failure["status"], failure.get("reason", ""), failure.get("message", ""))
                return
        self._drop(REPLICA_FAILURE)

    def note_pause(self) -> None:
        """A paused Deployment makes no progress, and is not to be blamed for it when it is resumed."""
        current = self.get(PROGRESSING)
        if not self.has_deadline() or (current is not None and current["reason"] == "ProgressDeadlineExceeded"):
            return
        was_paused = current is not None and current["reason"] == "DeploymentPaused"
        paused = bool(self.deployment["spec"].get("paused"))
        if paused and not was_paused:
            self.set(PROGRESSING, "Unknown", "DeploymentPaused", "Deployment is paused")
        elif was_paused and not paused:
            self.set(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed")

    def get(self, kind: str) -> Object | None:
        return next((known for known in self.conditions if known["type"] == kind), None)

    def _made_now(self, kind: str, status: str, reason: str, message: str) -> Object:
        now = rfc3339(self._now)
        return {
            "type": kind,
            "status": status,
            "lastUpdateTime": now,
            "lastTransitionTime": now,
            "reason": reason,
            "message": message,
        }

    def set(self, kind: str, status: str, reason: str, message: str) -> None:
        """Nothing changes while status and reason stay; a change goes to the end of the list."""
        current = self.get(kind)
        if current is not None and current["status"] == status and current.get("reason") == reason:
            return
        changed = self._made_now(kind, status, reason, message)
        if current is not None and current["status"] == status:
            changed["lastTransitionTime"] = current["lastTransitionTime"]
        self._drop(kind)
        self.conditions.append(changed)

    def _drop(self, kind: str) -> None:
        self.conditions = [known for known in self.conditions if known["type"] != kind]
