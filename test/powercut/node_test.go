//go:build powercut

package powercut_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/internal/workload"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

const (
	envOrder = "POWERCUT_ORDER"
	group    = "vg0"
	pool     = "pool"
	logged   = "logged"
	clients  = 3
)

// order is what a machine is to do before its power is cut.
type order struct {
	Seed uint64
	// State is a directory of the host's, in memory there, with the clients' records. In the machine it is at records.
	State string
	// Fresh: the disk is empty.
	Fresh bool
	// Logged: all that is written to the disk is recorded on the second disk (dm-log-writes).
	Logged bool
	// Careless: somebody writes all the time to a volume of the pool and never flushes.
	Careless bool
	// Work until the power is cut; else everything is compared, and checked by its own tools, and that is all.
	Work bool
}

// What the machine says to the host, on lines of their own.
const (
	saysVerified = "POWERCUT VERIFIED"
	saysWorking  = "POWERCUT WORKING"
	// So many copies are to be continued from where it was written down how far they were.
	saysContinues = "continued copies:"
)

var unfinished = regexp.MustCompile(`lvmsnap\.fill=copy:[1-9]`)

// TestMachine is the part that runs in the lab; TestPowerCut starts it there.
func TestMachine(t *testing.T) {
	text := os.Getenv(envOrder)
	if text == "" {
		return
	}
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatal(err)
	}
	(&node{T: t, order: o}).run()
}

type node struct {
	*testing.T
	order
	records string
	driver  *driverproc.Driver
	workers []*workload.Worker
	host    *workload.Host
	files   []*files
}

func (n *node) ok(err error) {
	n.Helper()
	if err != nil {
		n.Fatal(err)
	}
}

func (n *node) run() {
	n.records = filepath.Join(os.Getenv("TMPDIR"), "records")
	n.ok(os.MkdirAll(n.records, 0o755))
	n.ok(unix.Mount("none", n.records, "hostfs", 0, n.State))
	if n.Fresh {
		n.makeGroup()
	} else {
		n.ok((&workload.Host{Group: group, Pool: pool}).Check()) // as the cut has left it
		fmt.Println(saysContinues, len(unfinished.FindAllString(labtest.Run(n.T, "lvs", "--noheadings", "-o", "lv_tags", group), -1)))
		labtest.Run(n.T, "vgchange", "--activate", "ay", group) // as a booting machine does
	}
	n.driver = driverproc.Start(n.T, driverproc.Options{Groups: []string{group}, Flags: workload.Flags})
	n.host = &workload.Host{Clients: n.driver.Clients, Group: group, Pool: pool}
	if n.Careless {
		n.host.Foreign = []string{careless}
	}
	n.files = n.openFiles()
	for _, f := range n.files {
		n.host.Foreign = append(n.host.Foreign, f.lv())
	}
	for i := range clients {
		n.workers = append(n.workers, n.client(i))
	}
	if !n.Fresh {
		if err := n.host.Verify(n.workers); err != nil {
			n.Fatalf("%v\n%s%s", err, labtest.Run(n.T, "lvs", "-a", "-o+lv_uuid,tags,transaction_id,thin_id", group), labtest.Run(n.T, "dmsetup", "status"))
		}
		for _, f := range n.files {
			f.verify()
		}
		if n.Careless {
			n.checkCareless()
		}
		if n.Failed() {
			n.FailNow()
		}
		fmt.Println(saysVerified)
	}
	if !n.Work {
		for _, w := range n.workers {
			n.ok(w.Release())
		}
		n.driver.Stop()
		n.ok(n.host.Check())
		return
	}
	for _, f := range n.files {
		f.mount()
	}
	n.mark("start")
	if n.Careless {
		n.writeCarelessly()
	}
	fmt.Println(saysWorking)
	ended := make(chan error, 1+len(n.files)) // nobody does
	for _, f := range n.files {
		go func() { ended <- f.work() }()
	}
	go func() {
		ended <- workload.Together(n.workers, func(w *workload.Worker) error { return w.Run(1 << 30) })
	}()
	n.ok(<-ended)
}

// makeGroup makes the volume group, on the disk or on what records all writes to it.
func (n *node) makeGroup() {
	n.Helper()
	disks := labtest.Disks(n.T)
	disk := disks[0]
	if n.Logged {
		sectors := strings.TrimSpace(labtest.Run(n.T, "blockdev", "--getsz", disk))
		labtest.Run(n.T, "dmsetup", "--noudevrules", "--noudevsync", "create", logged, "--table", fmt.Sprintf("0 %s log-writes %s %s", sectors, disk, disks[1]))
		disk = "/dev/mapper/" + logged
		n.ok(os.Symlink("../dm-0", disk)) // no udevd is here to do it, and it is the first
		// The disk itself has the same label, and must not be seen.
		path := filepath.Join(os.Getenv("LVM_SYSTEM_DIR"), "lvm.conf")
		conf, err := os.ReadFile(path)
		n.ok(err)
		const disks = `"a|^/dev/ubd[b-p]|"`
		if !strings.Contains(string(conf), disks) {
			n.Fatalf("%s does not accept %s", path, disks)
		}
		n.ok(os.WriteFile(path, []byte(strings.Replace(string(conf), disks, `"a|^/dev/mapper/`+logged+`$|"`, 1)), 0o600))
	}
	labtest.Run(n.T, "vgcreate", "-y", group, disk)
	labtest.Run(n.T, "lvcreate", "-y", "--type", "thin-pool", "--name", pool, "--size", "1g", group)
	if n.Careless {
		labtest.Run(n.T, "lvcreate", "-y", "--type", "thin", "--thinpool", pool, "--name", careless, "--virtualsize", fmt.Sprint(carelessBytes, "b"), group)
	}
}

// mark says in the record of writes what has happened by then.
func (n *node) mark(what string) {
	if n.Logged {
		labtest.Run(n.T, "dmsetup", "message", logged, "0", "mark", what)
	}
}

// client is one with the record that it had when the power was cut.
func (n *node) client(i int) *workload.Worker {
	n.Helper()
	name := fmt.Sprint("w", i)
	path := filepath.Join(n.records, name)
	w := workload.Worker{
		Clients: n.driver.Connect(), Name: name, Group: group, Dir: filepath.Join(os.Getenv("TMPDIR"), name), Thick: true,
	}
	if last, err := lastRecord(path); err != nil {
		n.Fatal(err)
	} else if last != nil {
		n.ok(json.Unmarshal(last, &w.State))
		for _, v := range w.Volumes {
			v.Staged = false
		}
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	n.ok(err)
	w.Save = func(s *workload.State) error {
		line, err := json.Marshal(s)
		if err != nil {
			return err
		}
		if _, err := file.Write(append(line, '\n')); err != nil {
			return err
		}
		if err := file.Sync(); err != nil {
			return err
		}
		n.mark(fmt.Sprintf("%s:%d", name, s.Sequence))
		return nil
	}
	return workload.New(w, n.Seed+uint64(i)*1000+uint64(time.Now().UnixNano()%1000))
}

// lastRecord is the last whole line.
func lastRecord(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var last []byte
	for r := bufio.NewReaderSize(f, 1<<20); ; {
		line, err := r.ReadBytes('\n')
		if err != nil { // the last one may be cut short
			return last, nil
		}
		last = line
	}
}
