// Whom a client trusts and who it is, read once; every session of every thread is made from it.
//
// OpenSSL is used over memory buffers: bytes come from and go to a stream of ours, so it does no I/O and blocks nobody.

import COpenSSL
import Primitives

/// Why TLS cannot be set up.
package struct TLSSetupError: Error, CustomStringConvertible {
    package let description: String
}

@safe
package final class TLSClient: @unchecked Sendable {
    // OpenSSL counts references to a context with atomics and only reads it once sessions are made from it.
    let context: OpaquePointer

    /// - Parameters:
    ///   - authorities: a file of certificates in PEM that are trusted; `nil`: those that the system trusts.
    ///   - certificate: a file with the client's own certificate chain, and `key` with its private key, both in PEM.
    package init(
        authorities: String? = nil, certificate: String? = nil, key: String? = nil
    ) throws(TLSSetupError) {
        ERR_clear_error()
        guard let method = unsafe TLS_client_method(), let context = unsafe SSL_CTX_new(method) else {
            throw TLSSetupError(description: "OpenSSL: \(openSSLReason())")
        }
        unsafe self.context = context
        unsafe sluice_ctx_prepare(context)
        if let authorities {
            guard unsafe SSL_CTX_load_verify_locations(context, authorities, nil) == 1 else {
                throw TLSSetupError(description: "\(authorities): no certificates to trust: \(openSSLReason())")
            }
        } else {
            guard unsafe SSL_CTX_set_default_verify_paths(context) == 1 else {
                throw TLSSetupError(description: "the system's certificates: \(openSSLReason())")
            }
        }
        guard let certificate else { return }
        guard unsafe SSL_CTX_use_certificate_chain_file(context, certificate) == 1 else {
            throw TLSSetupError(description: "\(certificate): no certificate: \(openSSLReason())")
        }
        let key = key ?? certificate
        guard unsafe SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) == 1 else {
            throw TLSSetupError(description: "\(key): no private key without a passphrase: \(openSSLReason())")
        }
        guard unsafe SSL_CTX_check_private_key(context) == 1 else {
            throw TLSSetupError(description: "\(key): not the key of \(certificate)")
        }
    }

    deinit { unsafe SSL_CTX_free(context) }
}

/// What OpenSSL says of this thread's last failure.
func openSSLReason() -> String {
    let code = ERR_peek_last_error()
    ERR_clear_error()
    guard code != 0, let text = unsafe ERR_reason_error_string(code) else { return "no reason given" }
    return unsafe String(cString: text)
}
