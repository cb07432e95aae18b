package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

func TestGetPluginInfo(t *testing.T) {
	p := startPlugin(t, 0)
	info := must(p.GetPluginInfo(t.Context(), &csi.GetPluginInfoRequest{}))(t)
	if info.GetName() != "csi.lvmsnap.io" || info.GetVendorVersion() != "v0.0.0-test" {
		t.Errorf("got %v", info)
	}
}

func TestGetPluginCapabilities(t *testing.T) {
	p := startPlugin(t, 0)
	var got []string
	for _, c := range must(p.GetPluginCapabilities(t.Context(), &csi.GetPluginCapabilitiesRequest{}))(t).GetCapabilities() {
		if c.GetService() != nil {
			got = append(got, c.GetService().GetType().String())
		} else {
			got = append(got, c.GetVolumeExpansion().GetType().String())
		}
	}
	want := []string{"CONTROLLER_SERVICE", "VOLUME_ACCESSIBILITY_CONSTRAINTS", "SNAPSHOT_ACCESSIBILITY_CONSTRAINTS", "ONLINE"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestProbe(t *testing.T) {
	p := startPlugin(t, 0)
	if rsp := must(p.Probe(t.Context(), &csi.ProbeRequest{}))(t); !rsp.GetReady().GetValue() {
		t.Errorf("got %v, want ready", rsp)
	}
	for _, test := range []struct {
		err  error
		code codes.Code
	}{
		{errors.New("lvm is not installed: install lvm2"), codes.FailedPrecondition},
		{fmt.Errorf("%w: no group", storage.ErrNotFound), codes.FailedPrecondition}, // not NotFound
		{context.DeadlineExceeded, codes.DeadlineExceeded},
	} {
		p.engine.before = func(string) error { return test.err }
		_, err := p.Probe(t.Context(), &csi.ProbeRequest{})
		wantCode(t, err, test.code, test.err.Error())
	}
}
