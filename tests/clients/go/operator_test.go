package clients

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

var greetings = schema.GroupVersionKind{Group: "example.fastkube.dev", Version: "v1", Kind: "Greeting"}

// greetingDefinition is a CRD with a status, defaults, printer columns and a CEL rule.
func greetingDefinition() *apiextensionsv1.CustomResourceDefinition {
	text := apiextensionsv1.JSONSchemaProps{Type: "string"}
	return &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "greetings." + greetings.Group},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: greetings.Group, Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "greetings", Singular: "greeting", Kind: "Greeting", ListKind: "GreetingList"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: "v1", Served: true, Storage: true,
				Subresources: &apiextensionsv1.CustomResourceSubresources{Status: &apiextensionsv1.CustomResourceSubresourceStatus{}},
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{
					Type: "object",
					Properties: map[string]apiextensionsv1.JSONSchemaProps{
						"spec": {
							Type: "object",
							Properties: map[string]apiextensionsv1.JSONSchemaProps{
								"who":  text,
								"word": {Type: "string", Default: &apiextensionsv1.JSON{Raw: []byte(`"Hello"`)}},
							},
							XValidations: apiextensionsv1.ValidationRules{{Rule: "self.who != 'nobody'", Message: "somebody must be greeted"}},
						},
						"status": {Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{"text": text}},
					},
				}},
			}},
		},
	}
}

func greeting(space, name, who string) *unstructured.Unstructured {
	made := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"who": who}}}
	made.SetGroupVersionKind(greetings)
	made.SetNamespace(space)
	made.SetName(name)
	return made
}

// reconciler keeps a ConfigMap with the text of each Greeting.
type reconciler struct{ client.Client }

func (r *reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	found := &unstructured.Unstructured{}
	found.SetGroupVersionKind(greetings)
	if err := r.Get(ctx, request.NamespacedName, found); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	who, _, _ := unstructured.NestedString(found.Object, "spec", "who")
	word, _, _ := unstructured.NestedString(found.Object, "spec", "word")
	text := fmt.Sprintf("%s, %s!", word, who)
	owned := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: request.Name, Namespace: request.Namespace}}
	_, err := controllerutil.CreateOrUpdate(ctx, r.Client, owned, func() error {
		owned.Data = map[string]string{"text": text}
		return controllerutil.SetControllerReference(found, owned, r.Scheme())
	})
	if err != nil {
		return ctrl.Result{}, err
	}
	if err := unstructured.SetNestedField(found.Object, text, "status", "text"); err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{}, r.Status().Update(ctx, found)
}

// webhooks label every Greeting, and refuse those for "rude".
func webhooks() ([]*admissionv1.MutatingWebhookConfiguration, []*admissionv1.ValidatingWebhookConfiguration) {
	rules := []admissionv1.RuleWithOperations{{
		Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
		Rule:       admissionv1.Rule{APIGroups: []string{greetings.Group}, APIVersions: []string{"v1"}, Resources: []string{"greetings"}},
	}}
	none := admissionv1.SideEffectClassNone
	reach := func(path string) admissionv1.WebhookClientConfig {
		return admissionv1.WebhookClientConfig{Service: &admissionv1.ServiceReference{Name: "operator", Namespace: "default", Path: ptr.To(path)}}
	}
	mutating := &admissionv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "greetings"}, Webhooks: []admissionv1.MutatingWebhook{{
		Name: "label.example.fastkube.dev", Rules: rules, ClientConfig: reach("/label"), SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
	}}}
	validating := &admissionv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "greetings"}, Webhooks: []admissionv1.ValidatingWebhook{{
		Name: "polite.example.fastkube.dev", Rules: rules, ClientConfig: reach("/polite"), SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
	}}}
	return []*admissionv1.MutatingWebhookConfiguration{mutating}, []*admissionv1.ValidatingWebhookConfiguration{validating}
}

func label(_ context.Context, request admission.Request) admission.Response {
	found := &unstructured.Unstructured{}
	if err := found.UnmarshalJSON(request.Object.Raw); err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	found.SetLabels(map[string]string{"greeted": "yes"})
	changed, err := found.MarshalJSON()
	if err != nil {
		return admission.Errored(http.StatusInternalServerError, err)
	}
	return admission.PatchResponseFromRaw(request.Object.Raw, changed)
}

func polite(_ context.Context, request admission.Request) admission.Response {
	found := &unstructured.Unstructured{}
	if err := found.UnmarshalJSON(request.Object.Raw); err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	if who, _, _ := unstructured.NestedString(found.Object, "spec", "who"); who == "rude" {
		return admission.Denied("be polite")
	}
	return admission.Allowed("")
}

func TestAnOperatorOfControllerRuntime(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	scheme := runtime.NewScheme()
	must(t, clientgoscheme.AddToScheme(scheme))
	mutating, validating := webhooks()
	environment := &envtest.Environment{
		UseExistingCluster: ptr.To(true), Config: config(t, false),
		CRDInstallOptions:     envtest.CRDInstallOptions{CRDs: []*apiextensionsv1.CustomResourceDefinition{greetingDefinition()}, CleanUpAfterUse: true},
		WebhookInstallOptions: envtest.WebhookInstallOptions{MutatingWebhooks: mutating, ValidatingWebhooks: validating},
	}
	reached, err := environment.Start()
	must(t, err)
	defer func() { must(t, environment.Stop()) }()
	hooks := environment.WebhookInstallOptions
	manager, err := ctrl.NewManager(reached, ctrl.Options{
		Scheme: scheme, Metrics: server.Options{BindAddress: "0"},
		LeaderElection: true, LeaderElectionID: "greetings", LeaderElectionNamespace: "default",
		WebhookServer: webhook.NewServer(webhook.Options{Host: hooks.LocalServingHost, Port: hooks.LocalServingPort, CertDir: hooks.LocalServingCertDir}),
	})
	must(t, err)
	watched := &unstructured.Unstructured{}
	watched.SetGroupVersionKind(greetings)
	must(t, ctrl.NewControllerManagedBy(manager).For(watched).Owns(&corev1.ConfigMap{}).Complete(&reconciler{manager.GetClient()}))
	manager.GetWebhookServer().Register("/label", &webhook.Admission{Handler: admission.HandlerFunc(label)})
	manager.GetWebhookServer().Register("/polite", &webhook.Admission{Handler: admission.HandlerFunc(polite)})
	go func() { must(t, manager.Start(ctx)) }()
	<-manager.Elected()

	typed := kubernetes.NewForConfigOrDie(reached)
	space := namespace(t, typed)
	direct, err := client.New(reached, client.Options{Scheme: scheme})
	must(t, err)
	eventually(t, "a Greeting is taken", func() (bool, error) {
		err := direct.Create(ctx, greeting(space, "a", "World"))
		return err == nil || apierrors.IsAlreadyExists(err), err
	})
	text := func() string {
		found, err := typed.CoreV1().ConfigMaps(space).Get(ctx, "a", metav1.GetOptions{})
		if err != nil {
			return err.Error()
		}
		return found.Data["text"]
	}
	eventually(t, "its ConfigMap is there", func() (bool, error) { return text() == "Hello, World!", nil })
	must(t, typed.CoreV1().ConfigMaps(space).Delete(ctx, "a", metav1.DeleteOptions{}))
	eventually(t, "a deleted ConfigMap comes back", func() (bool, error) { return text() == "Hello, World!", nil })
	eventually(t, "the status is written", func() (bool, error) {
		found := greeting(space, "a", "")
		err := direct.Get(ctx, client.ObjectKeyFromObject(found), found)
		told, _, _ := unstructured.NestedString(found.Object, "status", "text")
		return told == "Hello, World!" && found.GetLabels()["greeted"] == "yes", err
	})
	if err := direct.Create(ctx, greeting(space, "b", "rude")); !apierrors.IsForbidden(err) {
		t.Errorf("a webhook's refusal: %v", err)
	}
	if err := direct.Create(ctx, greeting(space, "c", "nobody")); !apierrors.IsInvalid(err) {
		t.Errorf("a rule's refusal: %v", err)
	}
	must(t, direct.Delete(ctx, greeting(space, "a", "")))
	eventually(t, "what it owned is collected", func() (bool, error) {
		_, err := typed.CoreV1().ConfigMaps(space).Get(ctx, "a", metav1.GetOptions{})
		return apierrors.IsNotFound(err), nil
	})
}
