package image

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
)

// Names are the image names in an archive: of `buildah push oci-archive:`
// (index.json) or of `docker save` (manifest.json).
func Names(archive string) ([]string, error) {
	f, err := os.Open(archive)
	if err != nil {
		return nil, fmt.Errorf("cannot open the image archive: %w", err)
	}
	defer f.Close()
	names, err := namesIn(f)
	if err != nil {
		return nil, fmt.Errorf("%s is not an image archive: %w", archive, err)
	}
	return names, nil
}

func namesIn(r io.Reader) ([]string, error) {
	var names []string
	found := false
	for t := tar.NewReader(r); ; {
		header, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read it as a tar file: %w; if it is compressed, decompress it first", err)
		}
		var read func(io.Reader) ([]string, error)
		switch path.Clean(header.Name) {
		case "index.json":
			read = ociNames
		case "manifest.json":
			read = dockerNames
		default:
			continue
		}
		found = true
		more, err := read(t)
		if err != nil {
			return nil, err
		}
		names = append(names, more...)
	}
	if !found {
		return nil, errors.New("missing index.json or manifest.json")
	}
	return names, nil
}

func ociNames(r io.Reader) ([]string, error) {
	var index struct {
		Manifests []struct {
			Annotations map[string]string `json:"annotations"`
		} `json:"manifests"`
	}
	if err := json.NewDecoder(r).Decode(&index); err != nil {
		return nil, fmt.Errorf("invalid index.json: %w", err)
	}
	var names []string
	for _, m := range index.Manifests {
		name := m.Annotations["io.containerd.image.name"]
		if name == "" {
			name = m.Annotations["org.opencontainers.image.ref.name"]
		}
		if name != "" {
			names = append(names, name)
		}
	}
	return names, nil
}

func dockerNames(r io.Reader) ([]string, error) {
	var manifest []struct{ RepoTags []string }
	if err := json.NewDecoder(r).Decode(&manifest); err != nil {
		return nil, fmt.Errorf("invalid manifest.json: %w", err)
	}
	var names []string
	for _, m := range manifest {
		names = append(names, m.RepoTags...)
	}
	return names, nil
}

// Full is the name that the kubelet asks containerd for when a pod names the
// image so: `datjob/trainer:1` is short for `docker.io/datjob/trainer:1`.
func Full(name string) string {
	first, rest, found := strings.Cut(name, "/")
	switch {
	case !found:
		name = "docker.io/library/" + name
	case !strings.ContainsAny(first, ".:") && first != "localhost":
		name = "docker.io/" + first + "/" + rest
	}
	if last := name[strings.LastIndex(name, "/"):]; !strings.ContainsAny(last, ":@") {
		name += ":latest"
	}
	return name
}
