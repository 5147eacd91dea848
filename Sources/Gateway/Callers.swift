// What one worker knows of callers, and who waits to be known.

import Credentials
import Identity
import Primitives

final class Callers {
    private var cache = CallerCache()
    private let key: DigestKey
    private let service: CredentialService
    private let worker: Int
    /// Who waits for a credential to be looked at. Those with the same one wait for one look.
    private var waiting: [CredentialDigest: [Waiting]] = [:]

    private struct Waiting {
        weak var client: ClientConnection?
        var look: CredentialLook
    }

    /// Memory of what is remembered.
    var bytes: Int { cache.bytes }

    /// Credentials of this worker that are being looked at.
    private static let looksMax = 1_024

    init(_ service: CredentialService, worker: Int, key: DigestKey) {
        self.service = service
        self.worker = worker
        self.key = key
    }

    func digest(_ bytes: Span<UInt8>, _ kind: CredentialKind) -> CredentialDigest {
        CredentialDigest(bytes, kind, key: key)
    }

    func find(_ digest: CredentialDigest, at now: MonotonicTime) -> CredentialOutcome? { cache.find(digest, at: now) }

    /// Has a credential looked at; `false` where too many are already.
    func ask(
        _ look: CredentialLook, _ kind: CredentialKind, _ bytes: Span<UInt8>, for client: ClientConnection
    ) -> Bool {
        let digest = look.digest
        let waiter = Waiting(client: client, look: look)
        if waiting[digest] != nil {
            waiting[digest]?.append(waiter)
            return true
        }
        guard waiting.count < Self.looksMax else { return false }
        var copy: [UInt8] = []
        copy.reserveCapacity(bytes.count)
        for i in bytes.indices { copy.append(bytes[i]) }
        guard service.ask(CredentialQuestion(worker: worker, kind: kind, digest: digest, bytes: copy)) else {
            return false
        }
        waiting[digest] = [waiter]
        return true
    }

    func answered(_ answer: CredentialAnswer, at now: MonotonicTime) {
        cache.insert(answer.digest, answer.outcome, until: answer.until, at: now)
        for waiter in waiting.removeValue(forKey: answer.digest) ?? [] {
            // Who has gone, or waits for another credential by now, is told nothing.
            guard let client = waiter.client, client.lookedAt === waiter.look else { continue }
            client.credentialAnswered(answer.outcome)
        }
    }

    /// Another configuration asks others: who waits is looked at anew.
    func abandon() {
        for waiter in waiting.values.joined() {
            guard let client = waiter.client, client.lookedAt === waiter.look else { continue }
            client.lookAgain()
        }
        waiting.removeAll()
    }

    func forget(_ which: CredentialChange) { cache.remove(which) }
}

/// A request whose credential is looked at.
final class CredentialLook {
    let digest: CredentialDigest
    /// `nil`: not yet.
    var outcome: CredentialOutcome?

    init(_ digest: CredentialDigest) { self.digest = digest }
}
