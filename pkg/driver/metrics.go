package driver

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
)

// Metrics counts what the server does.
type Metrics struct {
	duration *prometheus.HistogramVec
	inFlight prometheus.Gauge
	panics   prometheus.Counter
}

// NewMetrics makes the metrics and registers them; a nil registerer leaves them unregistered. An error says
// that metrics of these names are registered already.
func NewMetrics(registerer prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "lvmsnap_rpc_duration_seconds",
			Help: "How long CSI calls took, by method and gRPC code. Its _count is the number of calls.",
			// csi-provisioner gives up after 10 s, csi-snapshotter after 60 s; a copy can take minutes.
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300},
			// For those who ask for native histograms; the buckets above are for the others.
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
		}, []string{"method", "grpc_code"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "lvmsnap_rpc_in_flight",
			Help: "CSI calls that are being served at the moment.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "lvmsnap_panics_total",
			Help: "Panics in CSI calls. Any is a bug: its stack is in the log.",
		}),
	}
	if registerer == nil {
		return m, nil
	}
	return m, errors.Join(registerer.Register(m.duration), registerer.Register(m.inFlight), registerer.Register(m.panics))
}

func (m *Metrics) observe(method string, code codes.Code, took time.Duration) {
	m.duration.WithLabelValues(method, code.String()).Observe(took.Seconds())
}
