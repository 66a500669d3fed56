package image

import (
	"bytes"
	"strings"
	"testing"
)

func TestPauseArchiveCarriesItsName(t *testing.T) {
	var archive bytes.Buffer
	if err := WritePause(&archive, []byte("program")); err != nil {
		t.Fatal(err)
	}
	names, err := namesIn(&archive)
	if err != nil {
		t.Fatal(err)
	}
	if len(names) != 1 || names[0] != PauseName {
		t.Errorf("the archive names %q", names)
	}
}

func TestNamesOfAnOCIArchive(t *testing.T) {
	archive, err := tarball([]file{
		{"oci-layout", 0o644, []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{"./index.json", 0o644, []byte(`{"manifests":[
			{"annotations":{"org.opencontainers.image.ref.name":"localhost/trainer:1"}},
			{"annotations":{"io.containerd.image.name":"localhost/operator:1","org.opencontainers.image.ref.name":"1"}},
			{}]}`)},
	})
	if err != nil {
		t.Fatal(err)
	}
	names, err := namesIn(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(names, " "); got != "localhost/trainer:1 localhost/operator:1" {
		t.Errorf("got %s", got)
	}
}

func TestWhatIsNoImageArchiveIsRefused(t *testing.T) {
	other, err := tarball([]file{{"readme", 0o644, nil}})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"gzip": {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3}, "another tar": other,
		"broken index": mustTar(t, file{"index.json", 0o644, []byte("{")}),
	} {
		if _, err := namesIn(bytes.NewReader(data)); err == nil {
			t.Errorf("%s is taken for an image archive", name)
		}
	}
}

func TestFullName(t *testing.T) {
	for given, want := range map[string]string{
		"busybox":                       "docker.io/library/busybox:latest",
		"busybox:1":                     "docker.io/library/busybox:1",
		"datjob/trainer:1":              "docker.io/datjob/trainer:1",
		"localhost/trainer:1":           "localhost/trainer:1",
		"localhost:5000/trainer":        "localhost:5000/trainer:latest",
		"registry.example/a/b@sha256:1": "registry.example/a/b@sha256:1",
	} {
		if got := Full(given); got != want {
			t.Errorf("%s: got %s, want %s", given, got, want)
		}
	}
}

func mustTar(t *testing.T, files ...file) []byte {
	t.Helper()
	data, err := tarball(files)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
