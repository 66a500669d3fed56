package image

import (
	"embed"
	"errors"
)

//go:embed built
var built embed.FS

// PauseProgram is the program of the pause image.
func PauseProgram() ([]byte, error) {
	program, err := built.ReadFile("built/pause")
	if err != nil {
		return nil, errors.New("this binary was built without the pause program; build it with e2e/cluster/build.sh")
	}
	return program, nil
}
