// Whom a client trusts and who it is, read once; every session of every thread is made from it. Files are renewed while
// the process runs: what they hold by then can take the place of what was read, for the sessions to come.
//
// OpenSSL is used over memory buffers: bytes come from and go to a stream of ours, so it does no I/O and blocks nobody.

import COpenSSL
import LinuxIO
import Primitives
import Synchronization

/// Why TLS cannot be set up.
package struct TLSSetupError: Error, CustomStringConvertible {
    package let description: String
}

package final class TLSClient: Sendable {
    private let files: TLSFiles
    private let state: Mutex<TLSContext>

    /// - Parameters:
    ///   - authorities: a file of certificates in PEM that are trusted; `nil`: those that the system trusts.
    ///   - certificate: a file with the client's own certificate chain, and `key` with its private key, both in PEM.
    package init(
        authorities: String? = nil, certificate: String? = nil, key: String? = nil
    ) throws(TLSSetupError) {
        files = TLSFiles(authorities: authorities, certificate: certificate, key: key)
        state = Mutex(try TLSContext(files))
    }

    var context: TLSContext { state.withLock { $0 } }

    /// What the files hold now, where that is not what was read; `nil` where it is.
    package func renewal() throws(TLSSetupError) -> TLSRenewal? {
        guard files.contents != context.contents else { return nil }
        return TLSRenewal(context: try TLSContext(files))
    }

    /// Sessions are made from this from here on; those that there are go on.
    package func take(_ renewal: TLSRenewal) { state.withLock { $0 = renewal.context } }
}

/// Files that were read again.
package struct TLSRenewal: Sendable {
    let context: TLSContext
}

struct TLSFiles: Sendable {
    var authorities: String?
    var certificate: String?
    var key: String?

    /// What each file holds, as a number that is another one when it holds something else. What cannot be read or has no
    /// end that is known has none.
    var contents: [UInt64?] {
        let trusted = authorities ?? Self.authoritiesOfSystem
        return [trusted, certificate, certificate == nil ? nil : key].map { $0.flatMap(Self.contents) }
    }

    /// Where OpenSSL looks for them.
    private static var authoritiesOfSystem: String? {
        guard let variable = unsafe X509_get_default_cert_file_env(), let path = unsafe X509_get_default_cert_file()
        else { return nil }
        return unsafe Processes.environment[String(cString: variable)] ?? String(cString: path)
    }

    private static func contents(_ path: String) -> UInt64? {
        do throws(SystemError) {
            let file = try InputFile.openAtOnce(path: path)
            guard InputFile.kind(file) == .file else { return nil }
            var hash: UInt64 = 0
            var piece = [UInt8](repeating: 0, count: 64 << 10)
            while case let n = try InputFile.read(file, into: &piece), n > 0 {
                hash = stableHash(piece.span.extracting(..<n), seed: hash)
            }
            return hash
        } catch {
            return nil
        }
    }

    /// Why a file cannot even be opened, and what to do; `nil` where that is not what is wrong with it.
    static func reasonNotToOpen(_ path: String) -> String? {
        do throws(SystemError) {
            _ = try InputFile.openAtOnce(path: path)
            return nil
        } catch {
            if error.isMissing { return "there is no such file; name one in PEM" }
            if error.isForbidden { return "no permission to read it; change its mode or owner" }
            return error.reason
        }
    }
}

@safe
final class TLSContext: @unchecked Sendable {
    // OpenSSL counts references to a context with atomics and only reads it once sessions are made from it.
    let pointer: OpaquePointer
    /// Of the files, before they were read: what is written into them meanwhile is found the next time.
    let contents: [UInt64?]

    init(_ files: TLSFiles) throws(TLSSetupError) {
        contents = files.contents
        ERR_clear_error()
        guard let method = unsafe TLS_client_method(), let context = unsafe SSL_CTX_new(method) else {
            throw TLSSetupError(description: "OpenSSL: \(openSSLReason())")
        }
        unsafe pointer = context
        unsafe sluice_ctx_prepare(context)
        if let authorities = files.authorities {
            guard unsafe SSL_CTX_load_verify_locations(context, authorities, nil) == 1 else {
                throw Self.refused(authorities, "no certificates to trust")
            }
        } else {
            guard unsafe SSL_CTX_set_default_verify_paths(context) == 1 else {
                throw TLSSetupError(description: "the system's certificates: \(openSSLReason())")
            }
        }
        guard let certificate = files.certificate else { return }
        guard unsafe SSL_CTX_use_certificate_chain_file(context, certificate) == 1 else {
            throw Self.refused(certificate, "no certificate")
        }
        let key = files.key ?? certificate
        guard unsafe SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) == 1 else {
            if Self.isOfAnother(ERR_peek_last_error()) { throw Self.mismatch(key, certificate) }
            throw Self.refused(key, "no private key without a passphrase")
        }
        guard unsafe SSL_CTX_check_private_key(context) == 1 else { throw Self.mismatch(key, certificate) }
    }

    /// Whether a key is well, and the one of another certificate.
    private static func isOfAnother(_ code: UInt) -> Bool {
        guard let text = unsafe ERR_reason_error_string(code) else { return false }
        return unsafe ["key values mismatch", "key type mismatch"].contains(String(cString: text))
    }

    private static func mismatch(_ key: String, _ certificate: String) -> TLSSetupError {
        ERR_clear_error()
        return TLSSetupError(description: "\(key): not the key of \(certificate): name the one it was made with")
    }

    /// OpenSSL's word for a file that is not there is "system lib".
    private static func refused(_ path: String, _ what: String) -> TLSSetupError {
        let reason = openSSLReason()
        return TLSSetupError(description: "\(path): \(what): \(TLSFiles.reasonNotToOpen(path) ?? reason)")
    }

    deinit { unsafe SSL_CTX_free(pointer) }
}

/// What OpenSSL says of this thread's last failure.
func openSSLReason() -> String {
    let code = ERR_peek_last_error()
    ERR_clear_error()
    guard code != 0, let text = unsafe ERR_reason_error_string(code) else { return "no reason given" }
    return unsafe String(cString: text)
}
