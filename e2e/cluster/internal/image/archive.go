// Package image writes the pause image and reads the names in image archives.
package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
)

// PauseName is the image that holds a pod's namespaces open. Tests use it for
// their own pods too: nothing else is in the cluster at the start.
const PauseName = "localhost/datjob-pause:1"

// WritePause writes an archive, in the format of `docker save`, of an image
// with the one program in it.
func WritePause(w io.Writer, program []byte) error {
	layer, err := tarball([]file{{"pause", 0o755, program}})
	if err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config":       map[string]any{"Entrypoint": []string{"/pause"}, "User": "65535:65535", "WorkingDir": "/"},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + digest(layer)}},
	})
	if err != nil {
		return fmt.Errorf("cannot encode the configuration of the pause image: %w", err)
	}
	configName := digest(config) + ".json"
	manifest, err := json.Marshal([]map[string]any{{
		"Config": configName, "RepoTags": []string{PauseName}, "Layers": []string{"layer.tar"},
	}})
	if err != nil {
		return fmt.Errorf("cannot encode the manifest of the pause image: %w", err)
	}
	archive, err := tarball([]file{
		{"manifest.json", 0o644, manifest}, {configName, 0o644, config}, {"layer.tar", 0o644, layer},
	})
	if err != nil {
		return err
	}
	if _, err := w.Write(archive); err != nil {
		return fmt.Errorf("cannot write the pause image: %w", err)
	}
	return nil
}

type file struct {
	name string
	mode int64
	data []byte
}

func tarball(files []file) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		header := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.data)), Format: tar.FormatUSTAR}
		if err := w.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("cannot write %s to an archive: %w", f.name, err)
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, fmt.Errorf("cannot write %s to an archive: %w", f.name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("cannot finish an archive: %w", err)
	}
	return out.Bytes(), nil
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
