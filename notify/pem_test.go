package notify_test

import "encoding/pem"

// pemOf is a certificate in a file.
func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
