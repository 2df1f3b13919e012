package clients

import (
	"context"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	appsapply "k8s.io/client-go/applyconfigurations/apps/v1"
	coreapply "k8s.io/client-go/applyconfigurations/core/v1"
	metaapply "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
)

func TestCreateReadUpdateDelete(t *testing.T) {
	for name, protobuf := range wires() {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			client := kubernetes.NewForConfigOrDie(config(t, protobuf))
			maps := client.CoreV1().ConfigMaps(namespace(t, client))
			made, err := maps.Create(ctx, &corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Name: "a"},
				Data:       map[string]string{"k": "v"}, BinaryData: map[string][]byte{"b": {0, 1, 255}},
			}, metav1.CreateOptions{})
			must(t, err)
			if made.UID == "" || made.ResourceVersion == "" || made.CreationTimestamp.IsZero() {
				t.Fatalf("incomplete metadata: %+v", made.ObjectMeta)
			}
			read, err := maps.Get(ctx, "a", metav1.GetOptions{})
			must(t, err)
			if read.Data["k"] != "v" || len(read.BinaryData["b"]) != 3 {
				t.Fatalf("read %+v", read)
			}
			read.Data["k"] = "w"
			written, err := maps.Update(ctx, read, metav1.UpdateOptions{})
			must(t, err)
			if written.ResourceVersion == made.ResourceVersion {
				t.Fatal("an update keeps the resourceVersion")
			}
			made.Data["k"] = "late"
			if _, err = maps.Update(ctx, made, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
				t.Fatalf("a late update: %v", err)
			}
			patched, err := maps.Patch(ctx, "a", types.StrategicMergePatchType, []byte(`{"data":{"l":"x"}}`), metav1.PatchOptions{})
			must(t, err)
			if len(patched.Data) != 2 {
				t.Fatalf("patched to %v", patched.Data)
			}
			must(t, maps.Delete(ctx, "a", metav1.DeleteOptions{}))
			if _, err = maps.Get(ctx, "a", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				t.Fatalf("a deleted object: %v", err)
			}
		})
	}
}

func TestErrorsAreTyped(t *testing.T) {
	ctx := context.Background()
	client := kubernetes.NewForConfigOrDie(config(t, true))
	space := namespace(t, client)
	pods := client.CoreV1().Pods(space)
	_, err := pods.Create(ctx, pod("a"), metav1.CreateOptions{})
	must(t, err)
	if _, err = pods.Create(ctx, pod("a"), metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
		t.Errorf("a second one: %v", err)
	}
	bad := pod("b")
	bad.Spec.Containers[0].Image = ""
	bad.Spec.RestartPolicy = "Sometimes"
	_, err = pods.Create(ctx, bad, metav1.CreateOptions{})
	if !apierrors.IsInvalid(err) {
		t.Fatalf("an invalid one: %v", err)
	}
	if causes := err.(*apierrors.StatusError).ErrStatus.Details.Causes; len(causes) != 2 {
		t.Errorf("causes: %+v", causes)
	}
	if _, err = client.CoreV1().Pods("none").Create(ctx, pod("a"), metav1.CreateOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("no namespace: %v", err)
	}
	stranger := config(t, true)
	stranger.Impersonate.UserName = "nobody"
	nobody := kubernetes.NewForConfigOrDie(stranger)
	if _, err = nobody.CoreV1().Pods(space).List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a stranger: %v", err)
	}
}

func TestPagesAndSelectors(t *testing.T) {
	for name, protobuf := range wires() {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			client := kubernetes.NewForConfigOrDie(config(t, protobuf))
			secrets := client.CoreV1().Secrets(namespace(t, client))
			for number := range 7 {
				_, err := secrets.Create(ctx, &corev1.Secret{
					ObjectMeta: metav1.ObjectMeta{Name: named("s", number), Labels: map[string]string{"odd": []string{"no", "yes"}[number%2]}},
				}, metav1.CreateOptions{})
				must(t, err)
			}
			var names []string
			options := metav1.ListOptions{Limit: 3, LabelSelector: "odd"}
			for {
				page, err := secrets.List(ctx, options)
				must(t, err)
				for _, each := range page.Items {
					names = append(names, each.Name)
				}
				if options.Continue = page.Continue; options.Continue == "" {
					break
				}
			}
			if len(names) != 7 || names[0] != "s-00" || names[6] != "s-06" {
				t.Errorf("pages gave %v", names)
			}
			odd, err := secrets.List(ctx, metav1.ListOptions{LabelSelector: "odd in (yes)", FieldSelector: "metadata.name!=s-01"})
			must(t, err)
			if len(odd.Items) != 2 {
				t.Errorf("selectors gave %d", len(odd.Items))
			}
			must(t, secrets.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "odd=no"}))
			left, err := secrets.List(ctx, metav1.ListOptions{LabelSelector: "odd"})
			must(t, err)
			if len(left.Items) != 3 {
				t.Errorf("%d are left", len(left.Items))
			}
		})
	}
}

func TestWatchSeesEveryChangeInOrder(t *testing.T) {
	for name, protobuf := range wires() {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			client := kubernetes.NewForConfigOrDie(config(t, protobuf))
			maps := client.CoreV1().ConfigMaps(namespace(t, client))
			list, err := maps.List(ctx, metav1.ListOptions{})
			must(t, err)
			seconds := int64(30)
			watching, err := maps.Watch(ctx, metav1.ListOptions{
				ResourceVersion: list.ResourceVersion, FieldSelector: "metadata.name=w", TimeoutSeconds: &seconds,
			})
			must(t, err)
			defer watching.Stop()
			_, err = maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "w"}}, metav1.CreateOptions{})
			must(t, err)
			_, err = maps.Patch(ctx, "w", types.MergePatchType, []byte(`{"data":{"n":"1"}}`), metav1.PatchOptions{})
			must(t, err)
			must(t, maps.Delete(ctx, "w", metav1.DeleteOptions{}))
			for _, wanted := range []watch.EventType{watch.Added, watch.Modified, watch.Deleted} {
				event := <-watching.ResultChan()
				if event.Type != wanted || event.Object.(*corev1.ConfigMap).Name != "w" {
					t.Fatalf("%s instead of %s", event.Type, wanted)
				}
			}
		})
	}
}

func TestADeploymentRuns(t *testing.T) {
	ctx := context.Background()
	client := kubernetes.NewForConfigOrDie(config(t, true))
	space := namespace(t, client)
	labels := map[string]string{"app": "web"}
	deployments := client.AppsV1().Deployments(space)
	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: pod("x").Spec}
	template.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")}
	_, err := deployments.Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       appsv1.DeploymentSpec{Replicas: ptr.To(int32(2)), Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template},
	}, metav1.CreateOptions{})
	must(t, err)
	ready := func(count int32) func() (bool, error) {
		return func() (bool, error) {
			found, err := deployments.Get(ctx, "web", metav1.GetOptions{})
			return err == nil && found.Status.ReadyReplicas == count, err
		}
	}
	eventually(t, "two Pods ready", ready(2))
	_, err = deployments.UpdateScale(ctx, "web", &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: space}, Spec: autoscalingv1.ScaleSpec{Replicas: 3},
	}, metav1.UpdateOptions{})
	must(t, err)
	eventually(t, "three Pods ready", ready(3))
	pods, err := client.CoreV1().Pods(space).List(ctx, metav1.ListOptions{LabelSelector: "app=web"})
	must(t, err)
	for _, each := range pods.Items {
		if each.Status.PodIP == "" || each.Spec.NodeName == "" || each.Status.QOSClass != corev1.PodQOSBurstable {
			t.Errorf("Pod %s: %+v", each.Name, each.Status)
		}
	}
	must(t, client.PolicyV1().Evictions(space).Evict(ctx, &policyv1.Eviction{
		ObjectMeta: metav1.ObjectMeta{Name: pods.Items[0].Name, Namespace: space},
	}))
	eventually(t, "the evicted Pod is replaced", func() (bool, error) {
		_, err := client.CoreV1().Pods(space).Get(ctx, pods.Items[0].Name, metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return false, err
		}
		return ready(3)()
	})
}

func TestServerSideApply(t *testing.T) {
	for name, protobuf := range wires() {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			client := kubernetes.NewForConfigOrDie(config(t, protobuf))
			space := namespace(t, client)
			labels := map[string]string{"app": "web"}
			wanted := func(replicas int32, image string) *appsapply.DeploymentApplyConfiguration {
				return appsapply.Deployment("web", space).WithSpec(appsapply.DeploymentSpec().
					WithReplicas(replicas).
					WithSelector(metaapply.LabelSelector().WithMatchLabels(labels)).
					WithTemplate(coreapply.PodTemplateSpec().WithLabels(labels).
						WithSpec(coreapply.PodSpec().WithContainers(coreapply.Container().WithName("c").WithImage(image)))))
			}
			deployments := client.AppsV1().Deployments(space)
			made, err := deployments.Apply(ctx, wanted(0, "nginx:1"), metav1.ApplyOptions{FieldManager: "one"})
			must(t, err)
			if len(made.ManagedFields) != 1 || made.ManagedFields[0].Manager != "one" {
				t.Errorf("managed fields: %+v", made.ManagedFields)
			}
			if _, err = deployments.Apply(ctx, wanted(0, "nginx:2"), metav1.ApplyOptions{FieldManager: "two"}); !apierrors.IsConflict(err) {
				t.Fatalf("another manager's field: %v", err)
			}
			taken, err := deployments.Apply(ctx, wanted(0, "nginx:2"), metav1.ApplyOptions{FieldManager: "two", Force: true})
			must(t, err)
			if taken.Spec.Template.Spec.Containers[0].Image != "nginx:2" {
				t.Errorf("forced to %s", taken.Spec.Template.Spec.Containers[0].Image)
			}
			own, err := appsapply.ExtractDeployment(taken, "two")
			must(t, err)
			if own.Spec == nil || *own.Spec.Replicas != 0 {
				t.Errorf("extracted %+v", own)
			}
		})
	}
}
