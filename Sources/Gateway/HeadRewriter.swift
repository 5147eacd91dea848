// Heads on their way through: kept lines are copied as whole runs, and only what a gateway must change is written anew.

import HTTP1
import LinuxIO
import Primitives

/// The forwarding fields that a gateway writes itself.
enum Forwarding {
    /// From a peer that is not trusted these are claims, not facts: they are replaced (RFC 7239 §8.1).
    static let untrusted: FieldSet = [
        .xForwardedFor, .xForwardedHost, .xForwardedProto, .xForwardedPort, .xRealIP, .forwarded, .xOriginHost,
    ]
    /// A trusted proxy's list of addresses is continued; what it says of host and scheme stands.
    static let trusted: FieldSet = [.xForwardedFor, .xOriginHost]
}

/// What the rewriting of one request depends on.
struct RequestRewrite {
    /// Bytes of the path to leave out at its front.
    var stripped: Int
    /// The peer of the connection.
    var peer: IPAddress
    var peerTrusted: Bool
    /// Whether the backend's name replaces the client's Host.
    var replacesHost: Bool
    /// The pseudonym in `Via`.
    var via: [UInt8]
    /// The protocol to ask the backend for.
    var upgrade: Range<Int>?
    /// What is left of Max-Forwards for the next hop, where it binds.
    var hopsLeft: Int? = nil

    /// Writes the head for a backend, all but the tail that depends on which backend it is.
    func write(_ head: borrowing RequestHead, _ bytes: Span<UInt8>, to output: inout ByteBuffer) {
        appendRequestLine(of: head, from: bytes, strippingPrefix: stripped, to: &output)
        var dropped = peerTrusted ? Forwarding.trusted : Forwarding.untrusted
        let writesHost = !replacesHost && head.form == .absolute
        if replacesHost || writesHost { dropped.insert(.host) }
        if head.version == .http10 { dropped.insert(.expect) }
        if hopsLeft != nil { dropped.insert(.maxForwards) }
        if head.method == .trace { dropped = dropped.union(TraceAnswer.credentials) }
        if writesHost {
            // RFC 9112 §3.2.2: the target's authority replaces what Host says, or two readers see two hosts.
            output.append("Host: ")
            output.append(bytes.extracting(head.authority))
            output.append("\r\n")
        }
        copyFields(of: head, from: bytes, to: &output, dropping: dropped)

        output.append("X-Forwarded-For: ")
        if peerTrusted { copyForwardedFor(head, bytes, to: &output) }
        output.append(peer)
        output.append("\r\n")
        if !peerTrusted || !head.fields.contains(.xForwardedHost), !head.authority.isEmpty {
            output.append("X-Forwarded-Host: ")
            output.append(bytes.extracting(head.authority))
            output.append("\r\n")
        }
        if !peerTrusted || !head.fields.contains(.xForwardedProto) { output.append("X-Forwarded-Proto: http\r\n") }
        output.append(head.version == .http11 ? "Via: 1.1 " : "Via: 1.0 ")
        output.append(via.span)
        output.append("\r\n")
        if let upgrade {
            output.appendUpgrade(bytes.extracting(upgrade))
        } else if head.acceptsTrailers {
            output.append("TE: trailers\r\nConnection: TE\r\n")
        }
        if let hopsLeft {
            output.append("Max-Forwards: ")
            output.append(decimal: hopsLeft)
            output.append("\r\n")
        }
        switch head.framing {
        case .none: break
        case .length: output.appendRespelled(length: head.respelledLength)
        case .chunked: output.append("Transfer-Encoding: chunked\r\n")
        }
    }

    private func copyForwardedFor(_ head: borrowing RequestHead, _ bytes: Span<UInt8>, to output: inout ByteBuffer) {
        for field in head.fields where field.id == .xForwardedFor && !field.value.isEmpty {
            output.append(bytes.extracting(field.value))
            output.append(", ")
        }
    }
}

/// How a response's body reaches the client.
enum ResponseDelivery {
    /// No body, or as many bytes as the backend announced.
    case asAnnounced
    case chunked
    /// Until the connection ends: for HTTP/1.0 clients when the length is unknown.
    case untilClose
}

struct ResponseRewrite {
    var delivery: ResponseDelivery
    var keepAlive: Bool
    var clientVersion: HTTPVersion
    var via: [UInt8]
    /// The protocol that the backend has switched to, or wants.
    var upgrade: Range<Int>?
    /// A whole line, for answers that come without one.
    var date: [UInt8] = []

    func write(_ head: borrowing ResponseHead, _ bytes: Span<UInt8>, to output: inout ByteBuffer) {
        output.appendStatusLine(of: head, from: bytes)
        var dropped: FieldSet = []
        // RFC 9110 §8.6: neither 1xx nor 204 has a Content-Length; a client that believed one would wait.
        if head.status < 200 || head.status == 204 { dropped.insert(.contentLength) }
        copyFields(of: head, from: bytes, to: &output, dropping: dropped)
        output.append(head.version == .http11 ? "Via: 1.1 " : "Via: 1.0 ")
        output.append(via.span)
        output.append("\r\n")
        if let upgrade { output.appendUpgrade(bytes.extracting(upgrade)) }
        if !dropped.contains(.contentLength) { output.appendRespelled(length: head.respelledLength) }
        if head.status >= 200 {
            // RFC 9110 §6.6.1: whoever passes on a response without a date adds one, or caches cannot tell its age.
            if !head.fields.contains(.date) { output.append(date.span) }
            switch delivery {
            case .chunked: output.append("Transfer-Encoding: chunked\r\n")
            case .asAnnounced, .untilClose: break
            }
            if !keepAlive {
                output.append("Connection: close\r\n")
            } else if clientVersion == .http10 {
                output.append("Connection: keep-alive\r\n")
            }
        }
        output.append("\r\n")
    }
}

extension ByteBuffer {
    /// RFC 9110 §7.8: an Upgrade field counts only where Connection names it.
    fileprivate mutating func appendUpgrade(_ name: Span<UInt8>) {
        append("Connection: Upgrade\r\nUpgrade: ")
        append(name)
        append("\r\n")
    }
}
