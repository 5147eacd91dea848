// Heads on their way through: kept lines are copied as whole runs, and only what a gateway must change is written anew.

import Configuration
import HTTP1
import Identity
import LinuxIO
import Primitives

/// The forwarding fields of a request that are not passed on as they came.
enum Forwarding {
    /// From a peer that is not trusted these are claims, not facts: they are replaced (RFC 7239 §8.1).
    static let untrusted: FieldSet = [
        .xForwardedFor, .xForwardedHost, .xForwardedProto, .xForwardedPort, .xForwardedPrefix, .xForwardedServer,
        .xForwardedScheme, .xForwardedSsl, .xRealIP, .xClientIP, .trueClientIP, .forwarded, .xOriginHost,
    ]
    /// A trusted proxy's list of addresses is continued; what it says of host and scheme stands. It knows nothing of
    /// `Forwarded`, which is therefore the client's own, and so may be a single address.
    static let trusted: FieldSet = [.xForwardedFor, .xOriginHost, .forwarded, .xRealIP, .xClientIP, .trueClientIP]
}

/// Who asked: the one answer for limits, hashing, logs and headers.
struct ClientIdentity {
    /// Whose connection it is: its peer, or whom a trusted peer named by the PROXY protocol.
    var peer: IPAddress
    /// Whether that peer's word on others is believed.
    var peerTrusted: Bool
    /// Whom the walk through the believed header found; the peer where there was none.
    var client: IPAddress
    /// How the client asked a trusted proxy, as its `Forwarded` or its X-Forwarded-Proto says.
    var scheme: ForwardedScheme?
}

/// What the rewriting of one request depends on.
struct RequestRewrite {
    /// Bytes of the path to leave out at its front.
    var stripped: Int
    var identity: ClientIdentity
    /// The header that trusted proxies are believed, and that is continued.
    var believed: Configuration.ForwardedHeader
    /// Whether the backend's name replaces the client's Host.
    var replacesHost: Bool
    /// The protocol to ask the backend for.
    var upgrade: Range<Int>?
    /// What is left of Max-Forwards for the next hop, where it binds.
    var hopsLeft: Int? = nil
    /// A part of the query that no backend gets: a key.
    var hidden = 0..<0

    /// Not by `==`, which goes through a table for enumerations of another module that have raw values.
    private var believesForwarded: Bool {
        switch believed {
        case .xForwardedFor: false
        case .forwarded: true
        }
    }

    /// Writes the head for a backend, all but the tail that depends on which backend it is.
    ///
    /// - Parameter via: the pseudonym in `Via`.
    func write(_ head: borrowing RequestHead, _ bytes: Span<UInt8>, via: [UInt8], to output: inout ByteBuffer) {
        appendRequestLine(of: head, from: bytes, strippingPrefix: stripped, leavingOut: hidden, to: &output)
        let peerTrusted = identity.peerTrusted
        let stands = peerTrusted && !believesForwarded
        // Where `Forwarded` is believed nobody vouches for the X- fields.
        var dropped = stands ? Forwarding.trusted : Forwarding.untrusted
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

        writeAddresses(head, bytes, to: &output)
        if !stands || !head.fields.contains(.xForwardedHost), !head.authority.isEmpty {
            output.append("X-Forwarded-Host: ")
            output.append(bytes.extracting(head.authority))
            output.append("\r\n")
        }
        if !stands || !head.fields.contains(.xForwardedProto) {
            output.append(
                identity.scheme == .https ? "X-Forwarded-Proto: https\r\n" : "X-Forwarded-Proto: http\r\n")
        }
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

    /// Who the client is, in every spelling that backends ask for.
    private func writeAddresses(_ head: borrowing RequestHead, _ bytes: Span<UInt8>, to output: inout ByteBuffer) {
        output.append("X-Forwarded-For: ")
        if !believesForwarded {
            if identity.peerTrusted { copyList(.xForwardedFor, head, bytes, to: &output) }
        } else if identity.client != identity.peer {
            output.append(identity.client)
            output.append(", ")
        }
        output.append(identity.peer)
        output.append("\r\n")
        if identity.peerTrusted, head.fields.contains(.xRealIP) {
            // A backend behind such a proxy may go by it.
            output.append("X-Real-IP: ")
            output.append(identity.client)
            output.append("\r\n")
        }
        if believesForwarded { writeForwarded(head, bytes, to: &output) }
    }

    /// RFC 7239 §4: this hop's element, behind those that are believed.
    private func writeForwarded(_ head: borrowing RequestHead, _ bytes: Span<UInt8>, to output: inout ByteBuffer) {
        output.append("Forwarded: ")
        if identity.peerTrusted {
            if isWellFormedForwarded(head, bytes) {
                copyList(.forwarded, head, bytes, to: &output)
            } else if identity.client != identity.peer {
                // RFC 7239 §8.1: an open quote would swallow our element. What the walk made of it takes its place.
                output.appendForwarded(for: identity.client)
                if identity.scheme == .https { output.append(";proto=https") }
                output.append(", ")
            }
        }
        output.appendForwarded(for: identity.peer)
        if !head.authority.isEmpty {
            // No quote and no backslash is part of an authority that the parser lets through.
            output.append(";host=\"")
            output.append(bytes.extracting(head.authority))
            output.append("\"")
        }
        output.append(";proto=http\r\n")
    }

    private func isWellFormedForwarded(_ head: borrowing RequestHead, _ bytes: Span<UInt8>) -> Bool {
        for field in head.fields where field.id == .forwarded {
            guard Identity.isWellFormedForwarded(bytes.extracting(field.value)) else { return false }
        }
        return true
    }

    private func copyList(
        _ name: FieldName, _ head: borrowing RequestHead, _ bytes: Span<UInt8>, to output: inout ByteBuffer
    ) {
        for field in head.fields where field.id == name && !field.value.isEmpty {
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
    /// As chunks of what an encoder makes of it.
    case compressed
    /// Until the connection ends: for HTTP/1.0 clients when the length is unknown.
    case untilClose
}

struct ResponseRewrite {
    var delivery: ResponseDelivery
    var keepAlive: Bool
    var clientVersion: HTTPVersion
    /// The protocol that the backend has switched to, or wants.
    var upgrade: Range<Int>?
    /// Fields that are not passed on.
    var dropped = FieldSet()

    /// Writes the head for a client.
    ///
    /// - Parameters:
    ///   - via: the pseudonym in `Via`.
    ///   - date: a whole line, for answers that come without one.
    func write(
        _ head: borrowing ResponseHead, _ bytes: Span<UInt8>, via: [UInt8], date: [UInt8] = [],
        to output: inout ByteBuffer
    ) {
        output.appendStatusLine(of: head, from: bytes)
        var dropped = self.dropped
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
            case .chunked, .compressed: output.append("Transfer-Encoding: chunked\r\n")
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
    /// RFC 7239 §6: an IPv6 address stands in brackets, and so in quotes.
    fileprivate mutating func appendForwarded(for address: IPAddress) {
        switch address.family {
        case .v4:
            append("for=")
            append(address)
        case .v6:
            append("for=\"[")
            append(address)
            append("]\"")
        }
    }

    /// RFC 9110 §7.8: an Upgrade field counts only where Connection names it.
    fileprivate mutating func appendUpgrade(_ name: Span<UInt8>) {
        append("Connection: Upgrade\r\nUpgrade: ")
        append(name)
        append("\r\n")
    }
}
