package cluster

import (
	"fmt"
	"os"
	"path/filepath"

	"datjob.io/e2e/cluster/internal/config"
	"datjob.io/e2e/cluster/internal/image"
	"datjob.io/e2e/cluster/internal/pki"
	"datjob.io/e2e/cluster/internal/plan"
)

// writeFiles writes certificates, configuration and the pause image.
func writeFiles(l plan.Layout, audit config.Audit) error {
	if err := writeCertificates(l); err != nil {
		return err
	}
	node := l.Node(plan.First)
	for path, data := range map[string][]byte{
		node.ContainerdConfig():                               config.ContainerdConfig(node),
		filepath.Join(node.CNIConfig(), "10-datjob.conflist"): config.CNI(plan.First, node),
		node.KubeletConfig():                                  config.KubeletConfig(plan.First, l),
		node.ResolvConf():                                     config.ResolvConf(),
		l.Corefile():                                          config.Corefile(l),
		l.AuditPolicy():                                       audit.Policy(),
	} {
		if err := writeFile(path, data, 0o644); err != nil {
			return err
		}
	}
	for _, dir := range []string{l.LogDir(), l.Volumes(), node.VolumePlugins(), filepath.Dir(l.Pid(""))} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("cannot create a directory of the cluster: %w", err)
		}
	}
	return writePauseImage(l)
}

func writeCertificates(l plan.Layout) error {
	authority, err := pki.NewAuthority("datjob-cluster")
	if err != nil {
		return err
	}
	pairs := map[string]pki.Pair{config.Authority: authority.Pair}
	for name, identity := range config.Identities(plan.First) {
		if pairs[name], err = authority.Issue(identity); err != nil {
			return err
		}
	}
	for name, pair := range pairs {
		if err := writeFile(l.Certificate(name), pair.Certificate, 0o644); err != nil {
			return err
		}
		if err := writeFile(l.Key(name), pair.Key, 0o600); err != nil {
			return err
		}
	}
	private, public, err := pki.ServiceAccountKey()
	if err != nil {
		return err
	}
	if err := writeFile(l.Key(config.ServiceAccounts), private, 0o600); err != nil {
		return err
	}
	if err := writeFile(l.PublicKey(config.ServiceAccounts), public, 0o644); err != nil {
		return err
	}
	for _, name := range config.Clients() {
		kubeconfig := config.Kubeconfig(name, authority.Certificate, pairs[name])
		if err := writeFile(l.Kubeconfig(name), kubeconfig, 0o600); err != nil {
			return err
		}
	}
	admin := config.Kubeconfig(config.Admin, authority.Certificate, pairs[config.Admin])
	return writeFile(l.AdminKubeconfig(), admin, 0o600)
}

func writePauseImage(l plan.Layout) error {
	program, err := image.PauseProgram()
	if err != nil {
		return err
	}
	f, err := os.Create(l.PauseImage())
	if err != nil {
		return fmt.Errorf("cannot write the pause image: %w", err)
	}
	defer f.Close()
	return image.WritePause(f, program)
}

func writeFile(path string, data []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("cannot create a directory of the cluster: %w", err)
	}
	if err := os.WriteFile(path, data, mode); err != nil {
		return fmt.Errorf("cannot write a file of the cluster: %w", err)
	}
	return nil
}
