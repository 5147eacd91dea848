// One TLS connection of a client, as a state machine: bytes of the peer go in, bytes for the peer and plain text come
// out. It belongs to one thread.

import COpenSSL
package import LinuxIO
import Primitives

@safe
package final class TLSSession {
    package enum Handshake: Equatable {
        /// The peer is who it should be; plain text may flow.
        case established
        case pending
        case failed(String)
    }

    package enum ReadOutcome: Equatable {
        /// So many bytes of plain text; there may be more.
        case bytes(Int)
        case needsMore
        /// The peer has ended its side in order.
        case ended
        case failed(String)
    }

    private let ssl: OpaquePointer
    // Owned by `ssl`.
    private let incoming: OpaquePointer
    private let outgoing: OpaquePointer
    private let scratch: UnsafeMutableRawPointer
    /// What could not be encrypted yet, because OpenSSL first has to hear from the peer.
    private var waiting = ByteBuffer()
    private let context: TLSContext

    /// The largest record holds 16 KiB of plain text (RFC 8446 §5.1).
    private static let scratchSize = 17 << 10

    /// - Parameter host: the name or address that the certificate must be for.
    package init(_ client: TLSClient, host: String) throws(TLSSetupError) {
        context = client.context
        ERR_clear_error()
        guard let ssl = unsafe SSL_new(context.pointer), let incoming = unsafe BIO_new(BIO_s_mem()),
            let outgoing = unsafe BIO_new(BIO_s_mem())
        else { throw TLSSetupError(description: "OpenSSL: \(openSSLReason())") }
        unsafe self.ssl = ssl
        unsafe self.incoming = incoming
        unsafe self.outgoing = outgoing
        unsafe scratch = .allocate(byteCount: Self.scratchSize, alignment: 16)
        unsafe SSL_set_bio(ssl, incoming, outgoing)
        unsafe SSL_set_connect_state(ssl)
        // RFC 6125 §6.4: a certificate that is good for somebody else's name is worth nothing here.
        if Self.isAddress(host) {
            guard unsafe X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1 else {
                throw TLSSetupError(description: "\(host) is no address: \(openSSLReason())")
            }
        } else {
            unsafe SSL_set_hostflags(ssl, UInt32(X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS))
            guard unsafe SSL_set1_host(ssl, host) == 1, unsafe sluice_ssl_set_host_name(ssl, host) == 1 else {
                throw TLSSetupError(description: "\(host) is no host name: \(openSSLReason())")
            }
        }
    }

    deinit {
        unsafe SSL_free(ssl)
        unsafe scratch.deallocate()
    }

    private static func isAddress(_ host: String) -> Bool { IPAddress(host) != nil }

    /// Goes on with the handshake as far as what the peer has sent allows.
    package func handshake() -> Handshake {
        ERR_clear_error()
        let result = unsafe SSL_do_handshake(ssl)
        if result == 1 { return .established }
        switch unsafe SSL_get_error(ssl, result) {
        case SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE: return .pending
        default: return .failed(failureReason())
        }
    }

    private func failureReason() -> String {
        let verified = unsafe SSL_get_verify_result(ssl)
        if verified != Int(X509_V_OK), let text = unsafe X509_verify_cert_error_string(verified) {
            return unsafe "the server's certificate does not hold: \(String(cString: text))"
        }
        return "TLS: \(openSSLReason())"
    }

    /// Takes bytes as they came from the peer.
    package func feed(_ bytes: Span<UInt8>) {
        guard !bytes.isEmpty else { return }
        let incoming = unsafe self.incoming
        // A memory buffer takes all there is.
        _ = unsafe bytes.withUnsafeBytes { unsafe BIO_write(incoming, $0.baseAddress, Int32(clamping: $0.count)) }
    }

    /// Takes one piece of plain text. Call until it needs more: what is left inside would make no event.
    package func read(into buffer: inout ByteBuffer) -> ReadOutcome {
        ERR_clear_error()
        let result = unsafe SSL_read(ssl, scratch, Int32(Self.scratchSize))
        if result > 0 {
            unsafe buffer.append(Span(_unsafeBytes: UnsafeRawBufferPointer(start: scratch, count: Int(result))))
            return .bytes(Int(result))
        }
        switch unsafe SSL_get_error(ssl, result) {
        case SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE: return .needsMore
        case SSL_ERROR_ZERO_RETURN: return .ended
        default: return .failed(failureReason())
        }
    }

    /// Encrypts plain text; `takeOutput` gives what is to be sent. Returns why it failed, if it did.
    package func write(_ plain: Span<UInt8>) -> String? {
        if !waiting.isEmpty {
            waiting.append(plain)
            return writeWaiting()
        }
        var offset = 0
        while offset < plain.count {
            let rest = plain.extracting(offset..<plain.count)
            switch encrypt(rest) {
            case .bytes(let n): offset += n
            case .needsMore:
                waiting.append(rest)
                return nil
            case .ended: return "the peer has ended the session"
            case .failed(let reason): return reason
            }
        }
        return nil
    }

    /// Goes on with what `write` could not do. Call after `feed`.
    package func writeWaiting() -> String? {
        while !waiting.isEmpty {
            switch encryptWaiting(waiting) {
            case .bytes(let n): waiting.consume(n)
            case .needsMore: return nil
            case .ended: return "the peer has ended the session"
            case .failed(let reason): return reason
            }
        }
        return nil
    }

    private func encryptWaiting(_ buffer: borrowing ByteBuffer) -> ReadOutcome { encrypt(buffer.bytes) }

    private func encrypt(_ plain: Span<UInt8>) -> ReadOutcome {
        ERR_clear_error()
        let ssl = unsafe self.ssl
        let result = unsafe plain.withUnsafeBytes { unsafe SSL_write(ssl, $0.baseAddress, Int32(clamping: $0.count)) }
        if result > 0 { return .bytes(Int(result)) }
        switch unsafe SSL_get_error(ssl, result) {
        case SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE: return .needsMore
        case SSL_ERROR_ZERO_RETURN: return .ended
        default: return .failed(failureReason())
        }
    }

    /// Appends what the peer is to be sent: also reading and the handshake give rise to it.
    package func takeOutput(into buffer: inout ByteBuffer) {
        while true {
            let n = unsafe BIO_read(outgoing, scratch, Int32(Self.scratchSize))
            guard n > 0 else { return }
            unsafe buffer.append(Span(_unsafeBytes: UnsafeRawBufferPointer(start: scratch, count: Int(n))))
        }
    }
}
