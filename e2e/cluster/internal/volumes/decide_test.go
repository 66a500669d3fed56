package volumes

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func waitingClaim() *corev1.PersistentVolumeClaim {
	class := "standard"
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "ns", Name: "data", UID: "42",
			Annotations: map[string]string{provisionerAnnotation: Provisioner},
		},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class,
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany},
			Resources: corev1.VolumeResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			},
		},
	}
}

func TestOnlyClaimsThatWaitForUsAreServed(t *testing.T) {
	if !ToProvision(waitingClaim()) {
		t.Error("a claim that waits is not served")
	}
	block, now := corev1.PersistentVolumeBlock, metav1.Now()
	for name, change := range map[string]func(*corev1.PersistentVolumeClaim){
		"not yet given to us":   func(c *corev1.PersistentVolumeClaim) { c.Annotations = nil },
		"another provisioner's": func(c *corev1.PersistentVolumeClaim) { c.Annotations[provisionerAnnotation] = "other" },
		"bound":                 func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "pv" },
		"being deleted":         func(c *corev1.PersistentVolumeClaim) { c.DeletionTimestamp = &now },
		"for a block device":    func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeMode = &block },
		"with a selector":       func(c *corev1.PersistentVolumeClaim) { c.Spec.Selector = &metav1.LabelSelector{} },
	} {
		claim := waitingClaim()
		change(claim)
		if ToProvision(claim) {
			t.Errorf("a claim that is %s is served", name)
		}
	}
}

func TestVolumeIsForTheClaimAlone(t *testing.T) {
	keep := corev1.PersistentVolumeReclaimRetain
	class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "standard"}, ReclaimPolicy: &keep}
	v := VolumeFor(waitingClaim(), class, "/state/volumes")
	if v.Spec.HostPath.Path != "/state/volumes/pvc-42" || v.Spec.ClaimRef.UID != "42" || v.Spec.StorageClassName != "standard" {
		t.Errorf("got %+v", v.Spec)
	}
	if v.Spec.PersistentVolumeReclaimPolicy != keep {
		t.Error("the reclaim policy of the class is not followed")
	}
	size := v.Spec.Capacity[corev1.ResourceStorage]
	if size.String() != "1Gi" || v.Spec.AccessModes[0] != corev1.ReadWriteMany {
		t.Errorf("size %s, access %v", size.String(), v.Spec.AccessModes)
	}
}

func TestOnlyReleasedVolumesOfOursAreDeleted(t *testing.T) {
	released := func() *corev1.PersistentVolume {
		v := VolumeFor(waitingClaim(), &storagev1.StorageClass{}, "/state/volumes")
		v.Status.Phase = corev1.VolumeReleased
		return v
	}
	if !ToDelete(released()) {
		t.Error("a released volume is not deleted")
	}
	for name, change := range map[string]func(*corev1.PersistentVolume){
		"bound":     func(v *corev1.PersistentVolume) { v.Status.Phase = corev1.VolumeBound },
		"another's": func(v *corev1.PersistentVolume) { v.Annotations = nil },
		"to be kept": func(v *corev1.PersistentVolume) {
			v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
		},
	} {
		v := released()
		change(v)
		if ToDelete(v) {
			t.Errorf("a volume that is %s is deleted", name)
		}
	}
}
