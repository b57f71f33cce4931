// Puts pods before the admission policies of charts/epochgate, as an API server of Kubernetes does: the same plugins compile
// their CEL, match, mutate and validate. What an API server does besides (to take the policies themselves, to fill in
// defaults, to validate the pod that comes of it) is not here.
//
//	go run . POLICIES.yaml PODS.yaml
//
// Each pod goes through all mutating policies, then through all validating ones, and once more, as what came of it. What
// became of each is printed, as JSON.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	admissionregistration "k8s.io/api/admissionregistration/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/util/compatibility"
	feature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/client-go/discovery"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/openapi"
	"k8s.io/client-go/openapi/openapitest"
)

// What became of a pod.
type verdict struct {
	Name     string    `json:"name"`
	Mutated  bool      `json:"mutated"`
	Again    bool      `json:"again"`
	Refused  string    `json:"refused,omitempty"`
	Warnings []string  `json:"warnings,omitempty"`
	Pod      *core.Pod `json:"pod"`
}

// The mutating side and the validating side.
type server struct {
	mutate   *mutating.Plugin
	validate *validating.Plugin
}

func main() {
	if len(os.Args) != 3 {
		fail("usage: go run . POLICIES.yaml PODS.yaml")
	}
	policies, pods := read(os.Args[1]), read(os.Args[2])
	for _, object := range policies {
		if policy, is := object.(*admissionregistration.MutatingAdmissionPolicy); is {
			// In a cluster a mistake in it is passed over. Here it is to be seen.
			failurePolicy := admissionregistration.Fail
			policy.Spec.FailurePolicy = &failurePolicy
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	server, err := start(ctx, append(policies, namespaces(pods)...))
	check(err)
	for _, object := range pods {
		pod, is := object.(*core.Pod)
		if !is {
			fail("%s has a %T", os.Args[2], object)
		}
		check(print(server.admit(ctx, pod)))
	}
}

// Every object of a file. What it says must be known: a field that is misspelt is an error.
func read(path string) []runtime.Object {
	text, err := os.ReadFile(path)
	check(err)
	splitter := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	var objects []runtime.Object
	for {
		document, err := splitter.Read()
		if err == io.EOF {
			return objects
		}
		check(err)
		if len(bytes.TrimSpace(document)) == 0 {
			continue
		}
		object, _, err := decoder.Decode(document, nil, nil)
		if err != nil {
			fail("%s: %v", path, err)
		}
		objects = append(objects, object)
	}
}

// The namespaces that pods are in, with the label that every one has.
func namespaces(pods []runtime.Object) []runtime.Object {
	var found []runtime.Object
	seen := map[string]bool{}
	for _, object := range pods {
		pod, err := meta.Accessor(object)
		check(err)
		name := pod.GetNamespace()
		if !seen[name] {
			seen[name] = true
			labels := map[string]string{"kubernetes.io/metadata.name": name}
			found = append(found, &core.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}})
		}
	}
	return found
}

// Both plugins over a client that has the objects.
func start(ctx context.Context, objects []runtime.Object) (*server, error) {
	mutate, err := mutating.NewPlugin(nil)
	if err != nil {
		return nil, err
	}
	validate, err := validating.NewPlugin(nil)
	if err != nil {
		return nil, err
	}
	client := client{fake.NewClientset(objects...)}
	shared := informers.NewSharedInformerFactory(client, 0)
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(core.SchemeGroupVersion.WithKind("Pod"), meta.RESTScopeNamespace)
	initialize := initializer.New(client, dynamicfake.NewSimpleDynamicClient(scheme.Scheme), shared,
		authorizerfactory.NewAlwaysAllowAuthorizer(), feature.DefaultFeatureGate,
		compatibility.DefaultBuildEffectiveVersion(), ctx.Done(), mapper)
	for _, plugin := range []admission.Interface{mutate, validate} {
		initialize.Initialize(plugin)
	}
	mutate.SetEnabled(true)
	validate.SetEnabled(true)
	for _, plugin := range []admission.InitializationValidator{mutate, validate} {
		if err := plugin.ValidateInitialization(); err != nil {
			return nil, err
		}
	}
	shared.Start(ctx.Done())
	shared.WaitForCacheSync(ctx.Done())
	for !mutate.WaitForReady() || !validate.WaitForReady() {
		time.Sleep(10 * time.Millisecond)
	}
	return &server{mutate, validate}, nil
}

// Everything that an API server does with the policies when a pod is made, twice.
func (s *server) admit(ctx context.Context, pod *core.Pod) verdict {
	first, second := pod.DeepCopy(), (*core.Pod)(nil)
	said := verdict{Name: pod.Name}
	check(s.mutate.Admit(ctx, attributes(first), interfaces()))
	said.Mutated = !equality.Semantic.DeepEqual(pod, first)
	second = first.DeepCopy()
	check(s.mutate.Admit(ctx, attributes(second), interfaces()))
	said.Again = !equality.Semantic.DeepEqual(first, second)
	warnings := &recorder{}
	ctx = warning.WithWarningRecorder(ctx, warnings)
	if err := s.validate.Validate(ctx, attributes(first), interfaces()); err != nil {
		said.Refused = err.Error()
	}
	said.Warnings, said.Pod = warnings.texts, first
	return said
}

func attributes(pod *core.Pod) admission.Attributes {
	return admission.NewAttributesRecord(pod, nil, core.SchemeGroupVersion.WithKind("Pod"), pod.Namespace, pod.Name,
		core.SchemeGroupVersion.WithResource("pods"), "", admission.Create, &metav1.CreateOptions{}, false,
		&user.DefaultInfo{Name: "someone"})
}

func interfaces() admission.ObjectInterfaces {
	return admission.NewObjectInterfacesFromScheme(scheme.Scheme)
}

// The client of a test, with what it has not: the schemas of an API server.
type client struct{ *fake.Clientset }

type discoverer struct{ discovery.DiscoveryInterfaces }

func (c client) Discovery() discovery.DiscoveryInterfaces { return discoverer{c.Clientset.Discovery()} }

func (discoverer) OpenAPIV3() openapi.Client { return openapitest.NewEmbeddedFileClient() }

type recorder struct{ texts []string }

// AddWarning keeps what the one who made the pod is told.
func (r *recorder) AddWarning(_, text string) { r.texts = append(r.texts, text) }

func print(said verdict) error {
	text, err := json.MarshalIndent(said, "", "  ")
	if err == nil {
		fmt.Printf("%s\n", text)
	}
	return err
}

func check(err error) {
	if err != nil {
		fail("%v", err)
	}
}

func fail(format string, with ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", with...)
	os.Exit(1)
}
