// Upgrades to other protocols (RFC 9110 §7.8): which are passed on, and which answer is one to them.

import EventLoop
import HTTP1
import LinuxIO
import Primitives

/// The protocols to which a service lets its clients upgrade. All others stop here: an upgrade to HTTP/2 that a backend
/// agrees to, unseen, would carry requests past every rule of the gateway.
package struct Upgrades: Sendable {
    /// In lower case.
    private let names: [[UInt8]]

    package init(_ names: [String]) { self.names = names.map { Array($0.utf8) } }

    /// The first protocol of an Upgrade field's value that is listed, and where it stands, its version included.
    package func first(in value: Range<Int>, of bytes: Span<UInt8>) -> (name: Int, element: Range<Int>)? {
        var start = value.lowerBound
        while start < value.upperBound {
            var end = start
            while end < value.upperBound, bytes[end] != UInt8(ascii: ",") { end += 1 }
            let element = Self.trimmed(start..<end, bytes)
            if let name = names.indices.first(where: { matches($0, element, bytes) }) { return (name, element) }
            start = end + 1
        }
        return nil
    }

    /// The same of all Upgrade lines, which are one list.
    func first(of fields: HeaderFields, in bytes: Span<UInt8>) -> (name: Int, element: Range<Int>)? {
        for field in fields where field.id == .upgrade {
            if let found = first(in: field.value, of: bytes) { return found }
        }
        return nil
    }

    /// Whether the value names this one protocol and no other.
    package func isOnly(_ name: Int, in value: Range<Int>, of bytes: Span<UInt8>) -> Bool {
        names.indices.contains(name) && matches(name, Self.trimmed(value, bytes), bytes)
    }

    package func isWebSocket(_ name: Int) -> Bool { names[name] == Array("websocket".utf8) }

    private static func trimmed(_ range: Range<Int>, _ bytes: Span<UInt8>) -> Range<Int> {
        var (start, end) = (range.lowerBound, range.upperBound)
        func isBlank(_ byte: UInt8) -> Bool { byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t") }
        while start < end, isBlank(bytes[start]) { start += 1 }
        while start < end, isBlank(bytes[end - 1]) { end -= 1 }
        return start..<end
    }

    /// protocol-name ["/" protocol-version], of which the name is compared and both are tokens.
    private func matches(_ name: Int, _ element: Range<Int>, _ bytes: Span<UInt8>) -> Bool {
        let count = names[name].count
        guard element.count >= count else { return false }
        for i in 0..<count {
            let byte = bytes[element.lowerBound + i]
            let isUpper = byte >= UInt8(ascii: "A") && byte <= UInt8(ascii: "Z")
            if (isUpper ? byte | 0x20 : byte) != names[name][i] { return false }
        }
        let rest = (element.lowerBound + count)..<element.upperBound
        if rest.isEmpty { return true }
        guard rest.count > 1, bytes[rest.lowerBound] == UInt8(ascii: "/") else { return false }
        for i in rest.dropFirst() where !isVersionByte(bytes[i]) { return false }
        return true
    }

    private func isVersionByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "_"):
            true
        default: false
        }
    }
}

extension ClientConnection {
    /// The protocol of an Upgrade field to pass on; `nil` for a plain request.
    ///
    /// Only a request without a body may switch: behind a body the first byte of the other protocol would depend on
    /// both ends framing it alike.
    func takeUpgrade(_ head: borrowing RequestHead, _ bytes: Span<UInt8>, _ service: Service) -> Range<Int>? {
        upgrade = nil
        guard head.upgrade != nil, requestComplete, method != .head,
            let (name, element) = service.upgrades.first(of: head.fields, in: bytes)
        else { return nil }
        upgrade = name
        return element
    }

    /// Whether a 101 answers what was asked. One that nobody asked for, or that names another protocol, is an error of
    /// the backend's; a gateway that took every 101 for a tunnel would let a client who can make a backend answer so
    /// speak to it unseen.
    func accepts(_ head: borrowing ResponseHead, _ bytes: Span<UInt8>) -> Bool {
        guard let upgrade, let service, let value = head.upgrade, !head.fields.repeated.contains(.upgrade) else {
            return false
        }
        return service.upgrades.isOnly(upgrade, in: value, of: bytes)
    }

    /// RFC 9110 §15.5.22: a 426 says which protocol is wanted; one that is not listed would be asked for in vain.
    func offeredUpgrade(_ head: borrowing ResponseHead, _ bytes: Span<UInt8>) -> Range<Int>? {
        guard let service, version == .http11, head.upgrade != nil else { return nil }
        return service.upgrades.first(of: head.fields, in: bytes)?.element
    }

    /// The backend has switched: from here on the connection carries another protocol. `head` has been written to the
    /// worker's output, `rest` came behind it.
    func switchProtocols(_ connection: BackendConnection, _ rest: Span<UInt8>) {
        guard let lane else { return }
        let service = lane.service
        status = 101
        responseStarted = true
        answeredAt = loop.now
        // How long the tunnel lives and how it ends is no answer's business.
        isJudged = true
        worker.backendAnswered(lane, backendIndex, status: 101, isWhole: true, since: sentAt)
        backendDelivered()
        phase = .tunneling
        backend = nil
        _ = outbound.take()
        connection.becomeTunnel()
        let isWebSocket = upgrade.map { service.upgrades.isWebSocket($0) } ?? false
        let tunnel = Tunnel(
            self, connection, service: service, backendIndex: backendIndex, isWebSocket: isWebSocket)
        worker.tunnels.add(tunnel)
        if worker.draining { worker.drainTunnels() }
        var head = worker.output.take()
        tunnel.pass(head.bytes, rest, from: .backend)
        swap(&head, &worker.output)
        // What a client sent before it was answered belongs to the new protocol too.
        let early = takeHeld()
        if !early.isEmpty { tunnel.pass(early.bytes, from: .client) }
        tunnel.begin()
    }

    /// Both sides of the tunnel have ended.
    func tunnelEnded(received: Int, sent: Int) {
        requestBytes += received
        responseBytes += sent
        leaveBackend()
        logExchange()
        close()
    }
}
