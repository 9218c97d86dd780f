// Command node is every process of a one-node Kubernetes in one binary; the first argument chooses the part:
//
//	node control-plane --etcd-dir DIR [kube-apiserver's flags]
//	node controllers   [kube-controller-manager's flags]
//	node scheduler     [kube-scheduler's flags]
//	node proxy         [kube-proxy's flags]
//	node kubelet       [kubelet's flags]
//
// Each part is the upstream command, unchanged. Only etcd is embedded in the API server's process: it answers on loopback
// and is told not to sync to the disk, because this cluster lives as long as a test run.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

const (
	etcdClients  = "http://127.0.0.1:2379"
	etcdPeers    = "http://127.0.0.1:2380"
	etcdPatience = time.Minute
)

var parts = map[string]func([]string) (*cobra.Command, []string, error){
	"control-plane": controlPlane,
	"controllers":   upstream(controllers.NewControllerManagerCommand),
	"scheduler":     upstream(func() *cobra.Command { return scheduler.NewSchedulerCommand() }),
	"proxy":         upstream(proxy.NewProxyCommand),
	"kubelet":       upstream(func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) }),
}

func upstream(make func() *cobra.Command) func([]string) (*cobra.Command, []string, error) {
	return func(flags []string) (*cobra.Command, []string, error) { return make(), flags, nil }
}

func controlPlane(flags []string) (*cobra.Command, []string, error) {
	if len(flags) < 2 || flags[0] != "--etcd-dir" {
		return nil, nil, errors.New("control-plane wants --etcd-dir DIR first")
	}
	if err := startEtcd(flags[1]); err != nil {
		return nil, nil, fmt.Errorf("etcd: %w", err)
	}
	return apiserver.NewAPIServerCommand(), append([]string{"--etcd-servers=" + etcdClients}, flags[2:]...), nil
}

// startEtcd returns once etcd serves; it then runs until the process ends.
func startEtcd(dir string) error {
	clients, _ := url.Parse(etcdClients)
	peers, _ := url.Parse(etcdPeers)
	settings := embed.NewConfig()
	settings.Dir, settings.Name = dir, "node"
	settings.LogLevel, settings.LogOutputs = "warn", []string{"stderr"}
	settings.ListenClientUrls, settings.AdvertiseClientUrls = []url.URL{*clients}, []url.URL{*clients}
	settings.ListenPeerUrls, settings.AdvertisePeerUrls = []url.URL{*peers}, []url.URL{*peers}
	settings.InitialCluster = settings.InitialClusterFromName(settings.Name)
	settings.UnsafeNoFsync = true
	server, err := embed.StartEtcd(settings)
	if err != nil {
		return err
	}
	select {
	case <-server.Server.ReadyNotify():
		return nil
	case err := <-server.Err():
		return err
	case <-time.After(etcdPatience):
		return fmt.Errorf("not ready within %v", etcdPatience)
	}
}

func main() {
	names := make([]string, 0, len(parts))
	for name := range parts {
		names = append(names, name)
	}
	if len(os.Args) < 2 || parts[os.Args[1]] == nil {
		fmt.Fprintf(os.Stderr, "usage: %s %s [flags]\n", filepath.Base(os.Args[0]), strings.Join(names, "|"))
		os.Exit(2)
	}
	command, flags, err := parts[os.Args[1]](os.Args[2:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	// Some parts look at os.Args themselves (`--version`, the names of their logs).
	os.Args = append([]string{os.Args[0]}, flags...)
	command.SetArgs(flags)
	os.Exit(cli.Run(command))
}
