package events

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
)

// sink writes events by a client that knows of nothing else: client-go's own sink brings all of Kubernetes' types with it
// (docs/adr/0025 has the figures).
type sink struct{ client rest.Interface }

var _ record.EventSink = sink{}

func newSink(config *rest.Config) (record.EventSink, error) {
	scheme := runtime.NewScheme()
	scheme.AddKnownTypes(corev1.SchemeGroupVersion, &corev1.Event{})
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion) // the API's errors
	config = rest.CopyConfig(config)
	config.APIPath = "/api"
	config.GroupVersion = &corev1.SchemeGroupVersion
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.RESTClientFor(config)
	return sink{client}, err
}

func (s sink) Create(event *corev1.Event) (*corev1.Event, error) {
	out := &corev1.Event{}
	return out, s.client.Post().Namespace(event.Namespace).Resource("events").Body(event).Do(context.Background()).Into(out)
}

// Update is called by nobody, and there is no right to do it.
func (sink) Update(*corev1.Event) (*corev1.Event, error) { return nil, errors.ErrUnsupported }

func (s sink) Patch(event *corev1.Event, patch []byte) (*corev1.Event, error) {
	out := &corev1.Event{}
	return out, s.client.Patch(types.StrategicMergePatchType).Namespace(event.Namespace).Resource("events").Name(event.Name).
		Body(patch).Do(context.Background()).Into(out)
}
