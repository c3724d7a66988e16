// Command kubecluster is every Kubernetes component the tests need, in one binary: the first argument names the
// component, or the name that the binary is called by (kubectl).
//
// With KUBECLUSTER_PARENT=PID in the environment it dies with that process, however that process dies.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	kubeproxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

func main() {
	dieWithParent()
	component := filepath.Base(os.Args[0])
	if component != "kubectl" {
		if len(os.Args) < 2 {
			fail("usage: kubecluster COMPONENT [flags]")
		}
		component = os.Args[1]
		os.Args = append([]string{component}, os.Args[2:]...)
	}
	var command *cobra.Command
	switch component {
	case "etcd":
		etcdmain.Main(os.Args)
		return
	case "kubectl":
		command = kubectl.NewDefaultKubectlCommand()
	case "kube-apiserver":
		command = apiserver.NewAPIServerCommand()
	case "kube-controller-manager":
		command = controllermanager.NewControllerManagerCommand()
	case "kube-scheduler":
		command = scheduler.NewSchedulerCommand()
	case "kubelet":
		command = kubelet.NewKubeletCommand(context.Background())
	case "kube-proxy":
		command = kubeproxy.NewProxyCommand()
	default:
		fail("unknown component " + component)
	}
	os.Exit(cli.Run(command))
}

// dieWithParent asks the kernel for SIGKILL when the parent ends. The request belongs to the thread that makes it,
// so the main goroutine keeps its thread; the check afterwards covers a parent that ended before.
func dieWithParent() {
	parent, set := os.LookupEnv("KUBECLUSTER_PARENT")
	if !set {
		return
	}
	runtime.LockOSThread()
	_, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0)
	if errno != 0 {
		fail("prctl: " + errno.Error())
	}
	if strconv.Itoa(os.Getppid()) != parent {
		os.Exit(1)
	}
}

func fail(message string) {
	fmt.Fprintln(os.Stderr, message)
	os.Exit(2)
}
