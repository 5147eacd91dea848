// Who asks: the credential of a request, what is known of it, and what is answered where it does not suffice.
//
// A credential that this worker remembers costs one keyed hash. Any other is looked at on another thread: the head stays
// unread in what the connection holds, nothing more is read, and when the answer is here the head is read again as if it
// had just arrived. (Keeping what was parsed was rejected: offsets into bytes that move, for something that happens once
// in a token's life.)

import Configuration
import EventLoop
import HTTP1
import Identity
import LinuxIO
import Primitives

extension ClientConnection {
    /// The longest wait for a look at a credential. Redis has a second to answer.
    private static let lookMax = TimeSpan.seconds(2)
    /// A longer one is none: no look is wasted on it.
    private static let credentialBytesMax = 8 << 10

    private enum Shown {
        case none
        case ambiguous
        case credential(CredentialKind, Range<Int>)
    }

    /// Whether no backend gets an API key.
    var hidesKeys: Bool { worker.node.authentication?.hidesKeys ?? false }

    /// Keeps the names that tell a backend who asks for ourselves, and keys.
    func guardNames(_ head: inout RequestHead, _ bytes: Span<UInt8>) {
        guard let authentication = worker.node.authentication, !authentication.guarded.isEmpty else { return }
        head.keepBack(authentication.guarded, bytes)
    }

    /// The API key in the query, which no log shows, whatever its service asks.
    func keyParameter(_ head: borrowing RequestHead, _ bytes: Span<UInt8>) -> QueryParameter? {
        guard let authentication = worker.node.authentication, !authentication.keyParameter.isEmpty else { return nil }
        return head.parameter(authentication.keyParameter, in: bytes)
    }

    func appendTarget(
        _ head: borrowing RequestHead, _ bytes: Span<UInt8>, without key: QueryParameter, to line: inout ByteBuffer
    ) {
        line.append(bytes.extracting(head.target.lowerBound..<key.value.lowerBound))
        line.append("***")
        // What follows may be the key once more.
        if !key.isRepeated { line.append(bytes.extracting(key.value.upperBound..<head.target.upperBound)) }
    }

    /// The query with its question mark, without a key that nobody gets. One that is repeated has been refused.
    func appendQuery(_ head: borrowing RequestHead, _ bytes: Span<UInt8>, to output: inout ByteBuffer) {
        let (start, end) = (head.path.upperBound, head.pathAndQuery.upperBound)
        guard hidesKeys, let key = keyParameter(head, bytes) else {
            output.append(bytes.extracting(start..<end))
            return
        }
        output.append(bytes.extracting(start..<key.cut.lowerBound))
        output.append(bytes.extracting(key.cut.upperBound..<end))
    }

    /// Finds out who asks. Where the answer is `false` the request goes on later, or was answered.
    ///
    /// - Parameter service: its number.
    func identify(
        _ head: borrowing RequestHead, _ bytes: Span<UInt8>, _ service: Int, _ parameter: QueryParameter?
    ) -> Bool {
        caller = nil
        guard let authentication = worker.node.authentication else { return true }
        let mode = authentication.rules[service].mode
        guard mode != .none else { return true }
        switch Self.shown(head, bytes, authentication, parameter) {
        case .none:
            if mode == .optional { return true }
            refuse(.unidentified(.missing))
            return false
        case .ambiguous:
            refuse(.unidentified(.ambiguous))
            return false
        case .credential(let kind, let range):
            guard range.count <= Self.credentialBytesMax else {
                refuse(.unidentified(.invalid(kind == .token ? .malformed : .unknownAPIKey)))
                return false
            }
            let decoded = range == parameter?.value ? RequestHead.decodedParameter(bytes, range) : nil
            let looked =
                if let decoded { outcome(kind, decoded.span) } else { outcome(kind, bytes.extracting(range)) }
            guard let looked else { return false }
            return accept(looked, service, authentication)
        }
    }

    private func accept(
        _ outcome: CredentialOutcome, _ service: Int, _ authentication: Authentication
    ) -> Bool {
        switch outcome {
        case .verified(let found):
            caller = found
            guard found.has(scopes: authentication.rules[service].scopes) else {
                refuse(.unidentified(.insufficient(service: service)))
                return false
            }
            return true
        case .refused(let fault): refuse(.unidentified(.invalid(fault)))
        case .unavailable: refuse(.identityUnavailable)
        }
        return false
    }

    /// What became of a credential; `nil`: it is being looked at.
    private func outcome(_ kind: CredentialKind, _ bytes: Span<UInt8>) -> CredentialOutcome? {
        guard let callers = worker.callers else { return .unavailable }
        let digest = callers.digest(bytes, kind)
        if let look = lookedAt {
            lookedAt = nil
            if look.digest == digest, let outcome = look.outcome { return outcome }
        }
        if let outcome = callers.find(digest, at: worker.loop.now) { return outcome }
        let look = CredentialLook(digest)
        guard callers.ask(look, kind, bytes, for: self) else { return .unavailable }
        lookedAt = look
        phase = .identifying
        stream.deadline = worker.loop.now + Self.lookMax
        return nil
    }

    /// The credential of the request that waits has been looked at.
    func credentialAnswered(_ outcome: CredentialOutcome) {
        guard phase == .identifying, let look = lookedAt else { return }
        look.outcome = outcome
        readAgain()
    }

    /// The same, where another configuration counts by now.
    func lookAgain() {
        guard phase == .identifying else { return }
        lookedAt = nil
        readAgain()
    }

    private func readAgain() {
        phase = .head
        stream.deadline = Self.deadline(worker.loop.now, worker.node.limits.headerTimeout)
        // The head is still there, and is read as if it had just arrived.
        stream.wakeSoon()
    }

    /// RFC 6750 §2: one credential a request.
    private static func shown(
        _ head: borrowing RequestHead, _ bytes: Span<UInt8>, _ authentication: Authentication,
        _ parameter: QueryParameter?
    ) -> Shown {
        var shown = Shown.none
        var count = 0
        func found(_ kind: CredentialKind, _ range: Range<Int>) {
            count += 1
            shown = .credential(kind, range)
        }
        if authentication.takesTokens, head.fields.contains(.authorization) {
            // Two of them: the backend might read the other one.
            if head.fields.repeated.contains(.authorization) { return .ambiguous }
            if let field = head.fields.first(.authorization), let token = bearer(field.value, bytes) {
                found(.token, token)
            }
        }
        if authentication.keyHeaderIsKnown {
            if head.fields.repeated.contains(.xAPIKey) { return .ambiguous }
            if let field = head.fields.first(.xAPIKey), !field.value.isEmpty { found(.apiKey, field.value) }
        } else if !authentication.keyHeader.isEmpty {
            let name = authentication.keyHeader
            if let place = head.fields.first(named: name.span, in: bytes) {
                if head.fields.first(named: name.span, in: bytes, from: place + 1) != nil { return .ambiguous }
                let value = head.fields[place].value
                if !value.isEmpty { found(.apiKey, value) }
            }
        }
        if let parameter {
            if parameter.isRepeated { return .ambiguous }
            if !parameter.value.isEmpty { found(.apiKey, parameter.value) }
        }
        return count > 1 ? .ambiguous : shown
    }

    /// RFC 6750 §2.1; the scheme's name has no case (RFC 9110 §11.1).
    private static func bearer(_ value: Range<Int>, _ bytes: Span<UInt8>) -> Range<Int>? {
        guard value.count > 7, bytes[value.lowerBound + 6] == UInt8(ascii: " ") else { return nil }
        var word: UInt64 = 0
        for i in 0..<6 { word = word << 8 | UInt64(bytes[value.lowerBound + i] | 0x20) }
        guard word == 0x62_65_61_72_65_72 else { return nil }
        var start = value.lowerBound + 7
        while start < value.upperBound, bytes[start] == UInt8(ascii: " ") { start += 1 }
        return start < value.upperBound ? start..<value.upperBound : nil
    }
}
