package mailtest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// process is a script with everything it started, in a private mount and pid namespace.
type process struct {
	pid   int
	ended chan struct{} // closed when the script and everything it started are gone
	cmd   *exec.Cmd
	log   string // the file with what they all said
}

// run starts a bash script in a folder, to which its output goes too. It ends with kill, or when this process ends.
func run(dir, script string, env []string) (*process, error) {
	p := &process{ended: make(chan struct{}), log: filepath.Join(dir, "log")}
	out, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command("bash", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = isolated()
	p.cmd = cmd

	started := make(chan error)
	go func() {
		runtime.LockOSThread() // as the kernel kills the script at the end of the thread that started it
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
			close(p.ended)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	p.pid = cmd.Process.Pid
	return p, nil
}

// kill ends the script and everything it started.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.ended
}

// waitListening waits until processes started by the script listen on each of the ports.
func (p *process) waitListening(ports []int, timeout time.Duration) error {
	for deadline := time.Now().Add(timeout); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		select {
		case <-p.ended:
			said, _ := os.ReadFile(p.log)
			return fmt.Errorf("%v: %s", p.cmd.ProcessState, said)
		default:
			if all, err := p.listens(ports); all || err != nil {
				return err
			}
		}
	}
	said, _ := os.ReadFile(p.log)
	return fmt.Errorf("it does not listen on ports %v after %v: %s", ports, timeout, said)
}

// listens tells whether processes of the namespace listen on all the ports. It is an error when another process was
// quicker to take one.
func (p *process) listens(ports []int) (all bool, err error) {
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return false, err
	}
	own := p.sockets() // after the table, so that each of theirs in it is here too
	all = true
	for _, port := range ports {
		inode := listener(table, port)
		if inode != "" && !own[inode] {
			return false, fmt.Errorf("another process took port %d", port)
		}
		all = all && inode != ""
	}
	return all, nil
}

// listener finds the inode of the socket that listens on a port of 127.0.0.1.
func listener(table []byte, port int) string {
	local := fmt.Sprintf("0100007F:%04X", port)
	for line := range bytes.Lines(table) {
		f := strings.Fields(string(line)) // number, local address, remote address, state, ... , inode
		if len(f) > 9 && f[1] == local && f[3] == "0A" {
			return f[9]
		}
	}
	return ""
}

// sockets are the inodes of the sockets that the processes of the namespace have open.
func (p *process) sockets() map[string]bool {
	inodes := map[string]bool{}
	namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", p.pid))
	if err != nil {
		return inodes
	}
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range processes {
		if ns, _ := os.Readlink(dir + "/ns/pid"); ns != namespace {
			continue
		}
		files, _ := filepath.Glob(dir + "/fd/*")
		for _, file := range files {
			link, _ := os.Readlink(file)
			if inode, ok := strings.CutPrefix(link, "socket:["); ok {
				inodes[strings.TrimSuffix(inode, "]")] = true
			}
		}
	}
	return inodes
}
