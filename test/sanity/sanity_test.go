//go:build lab

// Package sanity_test runs csi-sanity, CSI's conformance suite, against the real driver on real LVM.
package sanity_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
	"github.com/onsi/gomega"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"k8s.io/klog/v2"

	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// leastSpecs is how many specs have to run with the capabilities that the driver has. The other ones skip
// themselves, also when the driver loses a capability that it should have: so fewer is a failure.
const leastSpecs = 75

// pendingSpec is the only one that csi-sanity itself has switched off.
const pendingSpec = "pagination should detect volumes added between pages and accept tokens when the last volume from a page is deleted"

// volumeBytes must be enough for every file system (xfs: 300 MB).
const volumeBytes = 512 << 20

func TestSanityMount(t *testing.T) { testSanity(t, "mount", "thin") }

func TestSanityBlock(t *testing.T) { testSanity(t, "block", "thin") }

func TestSanityThickMount(t *testing.T) { testSanity(t, "mount", "thick") }

func TestSanityThickBlock(t *testing.T) { testSanity(t, "block", "thick") }

// testSanity runs the suite in a process of its own: Ginkgo can run one only once per process.
func testSanity(t *testing.T, access, volumeType string) {
	vg := labtest.VolumeGroup(t, labtest.Options{Disks: 2, ThinPool: "pool", PoolSize: "6g"})
	driver := driverproc.Start(t, driverproc.Options{Groups: []string{vg.Name}})
	s := suite{Socket: driver.Socket, Access: access, Type: volumeType, Dir: t.TempDir()}

	config, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), envSuite+"="+string(config))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	if err := cmd.Run(); err != nil {
		t.Errorf("csi-sanity: %v", err)
	}
	checkReport(t, s.reportFile())
	if left := labtest.Run(t, "lvs", "--noheadings", "-o", "lv_name", vg.Name, "--select", "lv_name!=pool"); left != "" {
		t.Errorf("csi-sanity has deleted all that it made, and these are still there:\n%s", left)
	}
}

// checkReport looks at every spec, and does not believe the exit code.
func checkReport(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var reports []types.Report
	if err := json.Unmarshal(text, &reports); err != nil || len(reports) != 1 {
		t.Fatalf("%d reports, %v", len(reports), err)
	}
	count := map[types.SpecState]int{}
	for _, spec := range reports[0].SpecReports {
		if spec.LeafNodeType != types.NodeTypeIt {
			continue
		}
		count[spec.State]++
		switch {
		case spec.State.Is(types.SpecStateFailureStates):
			t.Errorf("%s: %s: %s", spec.State, spec.FullText(), spec.FailureMessage())
		case spec.State == types.SpecStatePending && spec.LeafNodeText != pendingSpec:
			t.Errorf("pending: %s", spec.FullText())
		}
	}
	passed := count[types.SpecStatePassed]
	t.Logf("csi-sanity: %d specs passed, %d skipped, %d pending", passed, count[types.SpecStateSkipped], count[types.SpecStatePending])
	if passed < leastSpecs {
		t.Errorf("only %d specs have run and passed, and there have to be %d", passed, leastSpecs)
	}
}

// envSuite makes of this test binary the suite that it describes.
const envSuite = "LVMSNAP_TEST_SANITY_SUITE"

func TestMain(m *testing.M) {
	config := os.Getenv(envSuite)
	if config == "" {
		os.Exit(m.Run())
	}
	var s suite
	if err := json.Unmarshal([]byte(config), &s); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	os.Exit(s.run())
}

// suite is one run of csi-sanity.
type suite struct{ Socket, Access, Type, Dir string }

func (s suite) reportFile() string { return filepath.Join(s.Dir, "report.json") }

func (s suite) run() (exitCode int) {
	config := sanity.NewTestConfig()
	config.Address = "unix://" + s.Socket
	config.TestVolumeAccessType = s.Access
	config.TestVolumeSize = volumeBytes
	config.TestVolumeParameters = map[string]string{"type": s.Type}
	config.TargetPath = filepath.Join(s.Dir, "mount")
	config.StagingPath = filepath.Join(s.Dir, "staging")
	config.DialOptions = append(config.DialOptions, grpc.WithUnaryInterceptor(fillSizeCaches))
	context := sanity.GinkgoTest(&config)
	defer context.Finalize()

	gomega.RegisterFailHandler(ginkgo.Fail)
	suiteConfig, reporter := ginkgo.GinkgoConfiguration()
	reporter.JSONReport = s.reportFile()
	reporter.NoColor = true
	klog.LogToStderr(false)
	klog.SetOutput(ginkgo.GinkgoWriter)
	reporter.Verbose = true
	if !ginkgo.RunSpecs(failures{}, "csi-sanity, access type "+s.Access+", type "+s.Type, suiteConfig, reporter) {
		return 1
	}
	return 0
}

// failures is the testing.T that Ginkgo wants; RunSpecs returns the same.
type failures struct{}

func (failures) Fail() {}

// fillSizeCaches is for a bug of csi-sanity v5.6.0: "should succeed when creating a snapshot with accessibility
// requirements" (pkg/sanity/controller.go:1454) compares two protobuf messages with gomega's Equal, which is
// reflect.DeepEqual and sees their internal caches. One of the two has been sent in a request meanwhile, so its
// size has been computed and is cached in it. The spec so fails for every driver that returns
// accessible_topology. Here all sizes are computed when a message arrives.
func fillSizeCaches(
	ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	err := invoke(ctx, method, req, reply, conn, opts...)
	if m, ok := reply.(proto.Message); ok && err == nil {
		proto.Size(m)
	}
	return err
}
