package pki

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/netip"
	"testing"
)

func TestIssuedCertificateIsTrustedForItsNamesAndBothUses(t *testing.T) {
	authority, err := NewAuthority("ca")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := authority.Issue(Identity{
		Name:      "system:node:node1",
		Groups:    []string{"system:nodes"},
		DNSNames:  []string{"node1"},
		Addresses: []netip.Addr{netip.MustParseAddr("10.213.0.1")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tls.X509KeyPair(pair.Certificate, pair.Key); err != nil {
		t.Fatalf("the key does not belong to the certificate: %v", err)
	}
	certificate := parse(t, pair.Certificate)
	if certificate.Subject.CommonName != "system:node:node1" || certificate.Subject.Organization[0] != "system:nodes" {
		t.Errorf("the certificate is for %s", certificate.Subject)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority.Certificate)
	for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		for _, name := range []string{"node1", "10.213.0.1"} {
			options := x509.VerifyOptions{Roots: roots, DNSName: name, KeyUsages: []x509.ExtKeyUsage{use}}
			if _, err := certificate.Verify(options); err != nil {
				t.Errorf("as %s, use %v: %v", name, use, err)
			}
		}
	}
}

func TestCertificateOfAnotherAuthorityIsNotTrusted(t *testing.T) {
	ours, err := NewAuthority("ca")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := NewAuthority("ca")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := theirs.Issue(Identity{Name: "admin", Groups: []string{"system:masters"}})
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ours.Certificate)
	options := x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	if _, err := parse(t, pair.Certificate).Verify(options); err == nil {
		t.Error("a stranger's certificate is trusted")
	}
}

func TestServiceAccountKeysBelongTogether(t *testing.T) {
	private, public, err := ServiceAccountKey()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(private)
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	block, _ = pem.Decode(public)
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if !key.PublicKey.Equal(parsed) {
		t.Error("the public key is another's")
	}
}

func parse(t *testing.T, data []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(data)
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}
