// Who is connected, and who asked: the PROXY header at the front of a connection, and the walk through what trusted
// proxies say of a request.

import Configuration
import EventLoop
import HTTP1
import Identity
import LinuxIO
import Primitives
import ProxyProtocol

/// How a node knows whose connection it is.
enum PeerSource {
    case socket
    /// A PROXY header names the client.
    case named
    /// A PROXY header says that it is the balancer's own, or names nobody: what comes over it nobody has looked at.
    case unnamed
}

extension ClientConnection {
    /// Whether what the peer says of its clients is believed.
    private var isBelieved: Bool {
        switch peerSource {
        // Where trusted peers begin with a PROXY header, one that has not is a balancer of bytes from before that.
        case .socket: worker.node.trusted.contains(peer) && (awaitsProxyHeader || !worker.node.proxyProtocol)
        case .named: worker.node.trusted.contains(peer)
        case .unnamed: false
        }
    }

    /// Goes by the configuration in force from the request at hand on. Whose connection this is stays as it was said.
    func goByConfiguration() {
        isOutdated = false
        reading = worker.node.readingPace
        guard isBelieved != peerTrusted else { return }
        peerTrusted.toggle()
        if peerTrusted {
            if let counted = countedClient { worker.node.connections.leave(counted) }
            countedClient = nil
        } else {
            // No header is due from it any more.
            awaitsProxyHeader = false
            // Nobody who is connected is closed for a limit that counts from now on.
            _ = countClient()
        }
    }

    /// Takes the header that a trusted peer has to send before anything else; returns how many bytes it took.
    func takeProxyHeader(_ bytes: Span<UInt8>) -> Int {
        switch ProxyHeader.parse(bytes) {
        case .needMore: return 0
        case .complete(let source, let length):
            awaitsProxyHeader = false
            switch source {
            case .client(let address):
                peer = address.ip
                peerSource = .named
                // The named peer may be a proxy in its turn, whose header is believed then.
                peerTrusted = worker.node.trusted.contains(peer)
                client = peer
            // Nobody has looked at what comes: a balancer of bytes adds no header, so what there is is the client's.
            case .connection:
                peerSource = .unnamed
                peerTrusted = false
            }
            guard countClient() else {
                worker.pressure.refused(peer)
                close()
                return length
            }
            stream.deadline = Self.deadline(loop.now, worker.node.limits.headerTimeout)
            return length
        case .malformed(let violation):
            // No answer: whoever is there speaks no HTTP, or is not whom the operator takes it for.
            worker.pressure.refusedProxyHeader(of: peer, violation.rawValue)
            close()
            return bytes.count
        }
    }

    /// Counts the connection against its client's limit. A proxy's own connection carries many clients and counts for
    /// none of them.
    func countClient() -> Bool {
        guard !peerTrusted else { return true }
        guard worker.node.connections.enter(peer) else { return false }
        countedClient = peer
        return true
    }

    /// Finds who asks: the peer, or whom its proxies name.
    func resolveClient(_ head: borrowing RequestHead, _ bytes: Span<UInt8>) {
        client = peer
        clientScheme = nil
        guard peerTrusted else { return }
        let trusted = worker.node.trusted
        let believed: FieldName
        switch worker.node.believedHeader {
        case .xForwardedFor: believed = .xForwardedFor
        case .forwarded: believed = .forwarded
        }
        if believed == .xForwardedFor, !head.fields.repeated.contains(.xForwardedProto) {
            clientScheme = head.fields.first(.xForwardedProto).flatMap { ForwardedScheme(bytes.extracting($0.value)) }
        }
        guard head.fields.contains(believed) else { return }
        var walk = ForwardedWalk(peer: peer, trusted: trusted)
        var index = head.fields.count
        while index > 0, walk.step == .more {
            index -= 1
            let field = head.fields[index]
            guard field.id == believed else { continue }
            let value = bytes.extracting(field.value)
            if believed == .forwarded {
                walk.readForwarded(value, trusted: trusted)
            } else {
                walk.readForwardedFor(value, trusted: trusted)
            }
        }
        client = walk.client
        if believed == .forwarded { clientScheme = walk.scheme }
    }
}
