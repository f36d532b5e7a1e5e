package mailtest

import "syscall"

// isolated asks for namespaces of mounts and process ids: when the first process of the latter ends, the kernel kills
// all others in it. That first process is killed when this process ends, in whatever way.
func isolated() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
}
