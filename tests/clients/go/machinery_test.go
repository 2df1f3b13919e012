package clients

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

func TestDynamicAndMetadataClients(t *testing.T) {
	ctx := context.Background()
	client := kubernetes.NewForConfigOrDie(config(t, false))
	space := namespace(t, client)
	services := schema.GroupVersionResource{Version: "v1", Resource: "services"}
	dynamicClient := dynamic.NewForConfigOrDie(config(t, false)).Resource(services).Namespace(space)
	made, err := dynamicClient.Create(ctx, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Service", "metadata": map[string]any{"name": "s"},
		"spec": map[string]any{"ports": []any{map[string]any{"port": int64(80)}}},
	}}, metav1.CreateOptions{})
	must(t, err)
	if address, _, _ := unstructured.NestedString(made.Object, "spec", "clusterIP"); address == "" {
		t.Error("no cluster IP")
	}
	partial, err := metadata.NewForConfigOrDie(config(t, true)).Resource(services).Namespace(space).Get(ctx, "s", metav1.GetOptions{})
	must(t, err)
	if partial.UID != made.GetUID() {
		t.Errorf("metadata of another object: %+v", partial)
	}
}

func TestDiscoveryMapsEveryKind(t *testing.T) {
	client := discovery.NewDiscoveryClientForConfigOrDie(config(t, false))
	groups, err := restmapper.GetAPIGroupResources(client)
	must(t, err)
	mapper := restmapper.NewDiscoveryRESTMapper(groups)
	for kind, resource := range map[schema.GroupKind]string{
		{Group: "apps", Kind: "Deployment"}:                               "deployments",
		{Group: "autoscaling", Kind: "HorizontalPodAutoscaler"}:           "horizontalpodautoscalers",
		{Group: "", Kind: "Endpoints"}:                                    "endpoints",
		{Group: "networking.k8s.io", Kind: "Ingress"}:                     "ingresses",
		{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}: "customresourcedefinitions",
	} {
		mapping, err := mapper.RESTMapping(kind)
		must(t, err)
		if mapping.Resource.Resource != resource {
			t.Errorf("%s maps to %s", kind, mapping.Resource.Resource)
		}
	}
	version, err := client.ServerVersion()
	must(t, err)
	if version.Minor != "36" {
		t.Errorf("version %+v", version)
	}
}

func TestSharedInformersFollow(t *testing.T) {
	for name, protobuf := range wires() {
		t.Run(name, func(t *testing.T) {
			ctx, stop := context.WithCancel(context.Background())
			defer stop()
			client := kubernetes.NewForConfigOrDie(config(t, protobuf))
			space := namespace(t, client)
			for number := range 20 {
				_, err := client.CoreV1().ConfigMaps(space).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: named("m", number)}}, metav1.CreateOptions{})
				must(t, err)
			}
			factory := informers.NewSharedInformerFactoryWithOptions(client, time.Hour, informers.WithNamespace(space))
			maps := factory.Core().V1().ConfigMaps()
			var updates, deletes atomic.Int32
			_, err := maps.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
				UpdateFunc: func(_, _ any) { updates.Add(1) },
				DeleteFunc: func(any) { deletes.Add(1) },
			})
			must(t, err)
			factory.Start(ctx.Done())
			factory.WaitForCacheSync(ctx.Done())
			found, err := maps.Lister().ConfigMaps(space).Get("m-07")
			must(t, err)
			changed := found.DeepCopy()
			changed.Data = map[string]string{"k": "v"}
			_, err = client.CoreV1().ConfigMaps(space).Update(ctx, changed, metav1.UpdateOptions{})
			must(t, err)
			must(t, client.CoreV1().ConfigMaps(space).Delete(ctx, "m-08", metav1.DeleteOptions{}))
			eventually(t, "the informer has seen both", func() (bool, error) {
				return updates.Load() >= 1 && deletes.Load() == 1, nil
			})
			if _, err = maps.Lister().ConfigMaps(space).Get("m-08"); err == nil {
				t.Error("the cache holds a deleted object")
			}
		})
	}
}

func TestLeaderElectionHandsOver(t *testing.T) {
	client := kubernetes.NewForConfigOrDie(config(t, false))
	space := namespace(t, client)
	var leaders atomic.Int32
	run := func(ctx context.Context, name string, leading chan<- string) {
		leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
			Lock: &resourcelock.LeaseLock{
				LeaseMeta: metav1.ObjectMeta{Name: "lock", Namespace: space}, Client: client.CoordinationV1(),
				LockConfig: resourcelock.ResourceLockConfig{Identity: name},
			},
			LeaseDuration: 3 * time.Second, RenewDeadline: 2 * time.Second, RetryPeriod: 200 * time.Millisecond,
			ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) {
					if leaders.Add(1) > 1 {
						t.Error("two leaders")
					}
					leading <- name
				},
				OnStoppedLeading: func() { leaders.Add(-1) },
			},
		})
	}
	leading := make(chan string, 2)
	first, stopFirst := context.WithCancel(context.Background())
	second, stopSecond := context.WithCancel(context.Background())
	defer stopSecond()
	go run(first, "first", leading)
	if name := <-leading; name != "first" {
		t.Fatalf("%s leads", name)
	}
	go run(second, "second", leading)
	time.Sleep(500 * time.Millisecond)
	stopFirst()
	select {
	case name := <-leading:
		if name != "second" {
			t.Errorf("%s leads", name)
		}
	case <-time.After(15 * time.Second):
		t.Error("nobody took over")
	}
}
