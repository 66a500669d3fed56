package cluster

import (
	"strings"
	"testing"
)

func TestDecideUp(t *testing.T) {
	mine, other := &Owner{Dir: "/mine"}, &Owner{Dir: "/other"}
	for name, test := range map[string]struct {
		observed Observed
		want     UpAction
	}{
		"an untouched machine":             {Observed{}, UpStart},
		"healthy":                          {Observed{Owner: mine, Processes: 9, Remains: true, Healthy: true}, UpNothing},
		"a part is missing":                {Observed{Owner: mine, Processes: 8, Remains: true}, UpCleanAndStart},
		"all was killed":                   {Observed{Owner: mine, Remains: true}, UpCleanAndStart},
		"the machine was started again":    {Observed{Owner: nil, Remains: true}, UpCleanAndStart},
		"noted, but nothing was made yet":  {Observed{Owner: mine}, UpCleanAndStart},
		"processes that nobody has noted":  {Observed{Processes: 3, Remains: true}, UpCleanAndStart},
		"another was killed and left over": {Observed{Owner: other, Remains: true}, UpCleanAndStart},
	} {
		got, err := DecideUp("/mine", test.observed)
		if err != nil || got != test.want {
			t.Errorf("%s: got %v, %v; want %v", name, got, err, test.want)
		}
	}
}

func TestAClusterOfAnotherDirectoryIsLeftAlone(t *testing.T) {
	o := Observed{Owner: &Owner{Dir: "/other"}, Processes: 1, Remains: true}
	_, upErr := DecideUp("/mine", o)
	_, downErr := DecideDown("/mine", o)
	for _, err := range []error{upErr, downErr} {
		if err == nil || !strings.Contains(err.Error(), "cluster --dir /other down") {
			t.Errorf("got %v", err)
		}
	}
}

func TestDecideDown(t *testing.T) {
	for name, test := range map[string]struct {
		observed Observed
		want     bool
	}{
		"an untouched machine":             {Observed{}, false},
		"healthy":                          {Observed{Owner: &Owner{Dir: "/mine"}, Processes: 9, Remains: true}, true},
		"all was killed":                   {Observed{Owner: &Owner{Dir: "/mine"}, Remains: true}, true},
		"another was killed and left over": {Observed{Owner: &Owner{Dir: "/other"}, Remains: true}, true},
		"remains that nobody has noted":    {Observed{Remains: true}, true},
	} {
		if got, err := DecideDown("/mine", test.observed); err != nil || got != test.want {
			t.Errorf("%s: got %v, %v; want %v", name, got, err, test.want)
		}
	}
}
