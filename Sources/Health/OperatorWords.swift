// What operators have said of backends. Their word stands above all evidence until they take it back.
//
// It is kept in one hash, and every node keeps a copy: where Redis comes back empty, the nodes write it again. A word
// that was taken back stays there as `auto`, so that a node which was away does not bring the old one back.

import Membership
import Primitives

package struct OperatorWord: Hashable, Sendable {
    package enum Word: String, Codable, CaseIterable, Sendable {
        /// No new requests; those under way end.
        case drain
        case down
        case up
        /// Nothing: evidence decides.
        case auto
    }

    package var word: Word
    /// Who said it: `ops@bastion`.
    package private(set) var by: String
    package var at: UnixTime

    private static let nameBytesMax = 64

    package init(_ word: Word, by: String, at: UnixTime) {
        self.word = word
        self.by = String(
            decoding: by.utf8.filter { $0 > 0x20 && $0 < 0x7f && $0 != UInt8(ascii: "\"") }.prefix(Self.nameBytesMax),
            as: UTF8.self)
        if self.by.isEmpty { self.by = "somebody" }
        self.at = at
    }

    /// Makes it later than a word that was said before it.
    package mutating func follow(_ before: OperatorWord) {
        if at <= before.at { at.milliseconds = saturatingAdd(before.at.milliseconds, 1) }
    }

    private struct Wire: Codable {
        var word: Word
        var by: String
        var at: Int64
    }

    package var json: String { WireJSON.text(Wire(word: word, by: by, at: at.milliseconds)) }

    package init(json bytes: [UInt8]) throws(HealthFormatError) {
        let wire: Wire = try WireJSON.read(bytes)
        self.init(wire.word, by: wire.by, at: UnixTime(milliseconds: wire.at))
    }
}

extension HealthKeys {
    /// A hash, `SERVICE|BACKEND` to an `OperatorWord` as JSON, and a channel that says only that it has changed.
    package static let operators = "sluice:operators"
    package static let operatorsChanged = "changed"

    package static func operatorField(_ key: BackendKey) -> String { "\(key.service)|\(key.url)" }

    /// Takes a field apart at its first `|`, which no service's name holds.
    package static func parse(operatorField field: String) throws(HealthFormatError) -> BackendKey {
        if field.utf8.count > WireJSON.bytesMax { throw .tooLong(bytes: field.utf8.count) }
        guard let bar = field.firstIndex(of: "|"), bar > field.startIndex, field.index(after: bar) < field.endIndex
        else { throw .badField }
        return BackendKey(service: String(field[..<bar]), url: String(field[field.index(after: bar)...]))
    }
}

extension HealthMachine {
    /// An operator has said something to this node. Returns whether the backend is known.
    package mutating func say(
        _ word: OperatorWord, of key: BackendKey, at now: HealthMoment, into actions: inout [HealthAction]
    ) -> Bool {
        guard let (s, b) = index[key] else { return false }
        var word = word
        // The later word counts, and the clocks of those who spoke may differ.
        if let before = services[s].backends[b].word { word.follow(before) }
        take(word, s, b, &actions)
        if isJoined { actions.append(.writeWord(key, word)) }
        evaluate(s, now, &actions)
        return true
    }

    /// Whether an operator holds it up.
    package func isHeldUp(_ key: BackendKey) -> Bool {
        index[key].map { services[$0.service].backends[$0.backend].word?.word == .up } ?? false
    }

    /// The whole hash of operators' words.
    package mutating func words(
        _ fields: [(field: String, value: [UInt8])], at now: HealthMoment, into actions: inout [HealthAction]
    ) {
        guard isJoined else { return }
        var found: [BackendKey: OperatorWord] = [:]
        for (field, value) in fields {
            do throws(HealthFormatError) {
                found[try HealthKeys.parse(operatorField: field)] = try OperatorWord(json: value)
            } catch {
                ignored(error, at: now, into: &actions)
            }
        }
        for s in services.indices {
            var changed = false
            for b in services[s].backends.indices {
                let backend = services[s].backends[b]
                switch (backend.word, found[backend.key]) {
                case (let own?, let theirs?) where theirs.at < own.at: actions.append(.writeWord(backend.key, own))
                case (let own, let theirs?):
                    guard own != theirs else { continue }
                    take(theirs, s, b, &actions)
                    changed = true
                case (let own?, nil): actions.append(.writeWord(backend.key, own))
                case (nil, nil): continue
                }
            }
            if changed { evaluate(s, now, &actions) }
        }
    }

    private mutating func take(_ word: OperatorWord, _ s: Int, _ b: Int, _ actions: inout [HealthAction]) {
        let before = services[s].backends[b].word
        services[s].backends[b].word = word
        if before?.word != word.word { actions.append(.log(.said(services[s].backends[b].key, word))) }
    }
}
