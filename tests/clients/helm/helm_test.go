// Package helm has Helm install, change, undo and remove a release as its users do.
package helm

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

func helm(t *testing.T, words ...string) string {
	t.Helper()
	said, err := exec.Command("go", append([]string{"tool", "helm", "--namespace", "helm"}, words...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("helm %s: %v\n%s", strings.Join(words, " "), err, said)
	}
	return string(said)
}

type revision struct {
	Revision int    `json:"revision"`
	Status   string `json:"status"`
}

func history(t *testing.T) []revision {
	t.Helper()
	var found []revision
	if err := json.Unmarshal([]byte(helm(t, "history", "web", "--output", "json")), &found); err != nil {
		t.Fatal(err)
	}
	return found
}

func TestAReleaseFromInstallToUninstall(t *testing.T) {
	helm(t, "install", "web", "chart", "--create-namespace", "--wait", "--timeout", "60s")
	helm(t, "upgrade", "web", "chart", "--set", "replicas=3", "--wait", "--timeout", "60s")
	if manifest := helm(t, "get", "manifest", "web"); !strings.Contains(manifest, "replicas: 3") {
		t.Fatalf("the second revision is not what was asked for:\n%s", manifest)
	}
	helm(t, "rollback", "web", "1", "--wait", "--timeout", "60s")
	found := history(t)
	want := []revision{{1, "superseded"}, {2, "superseded"}, {3, "deployed"}}
	if len(found) != len(want) {
		t.Fatalf("history: %v", found)
	}
	for place, one := range want {
		if found[place] != one {
			t.Errorf("revision %d: %v", place+1, found[place])
		}
	}
	helm(t, "test", "web", "--timeout", "60s")
	if told := helm(t, "upgrade", "web", "chart", "--dry-run=server", "--set", "replicas=2"); !strings.Contains(told, "replicas: 2") {
		t.Errorf("a dry run shows:\n%s", told)
	}
	helm(t, "uninstall", "web", "--wait", "--timeout", "60s")
	if left := strings.TrimSpace(helm(t, "list", "--all", "--output", "json")); left != "[]" {
		t.Errorf("left after uninstalling: %s", left)
	}
}

func TestWhatTheServerRefusesIsTold(t *testing.T) {
	said, err := exec.Command("go", "tool", "helm", "--namespace", "helm", "install", "bad", "chart",
		"--create-namespace", "--set", "replicas=-1").CombinedOutput()
	if err == nil || !strings.Contains(string(said), "must be greater than or equal to 0") {
		t.Fatalf("a negative number of replicas: %v\n%s", err, said)
	}
	if left := helm(t, "list", "--failed", "--short"); !strings.Contains(left, "bad") {
		t.Errorf("the failed release is not listed: %q", left)
	}
	helm(t, "uninstall", "bad")
}
