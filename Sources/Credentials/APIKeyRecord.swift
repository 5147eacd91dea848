// An API key as it is kept: by its SHA-256, with what is known of its owner.
//
// One round of SHA-256 and no slow hash: a key is 256 random bits, which nobody guesses however fast the hash. Slow hashes
// are for passwords, which people choose; one for each new key here would let anybody keep a node busy.

import Crypto
import FoundationEssentials
package import Identity

package struct APIKeyRecord: Codable, Equatable, Sendable {
    package var name: String
    package var user: String?
    package var org: String?
    package var tier: String?
    package var scopes: [String]?
    /// RFC 3339, for people.
    package var created: String?

    package init(
        name: String, user: String? = nil, org: String? = nil, tier: String? = nil, scopes: [String]? = nil,
        created: String? = nil
    ) {
        self.name = name
        self.user = user
        self.org = org
        self.tier = tier
        self.scopes = scopes
        self.created = created
    }

    /// Far more than the fields above take.
    private static let jsonBytesMax = 4_096

    /// `nil` for what is no record.
    package init?(json: String) {
        guard json.utf8.count <= Self.jsonBytesMax,
            let record = try? JSONDecoder().decode(APIKeyRecord.self, from: Data(json.utf8))
        else { return nil }
        self = record
    }

    package var json: String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return (try? encoder.encode(self)).map { String(decoding: $0, as: UTF8.self) } ?? "{}"
    }

    /// Whom the key stands for; `nil` where a text of the record cannot stand in a header.
    package func claims(id: String) -> CallerClaims? {
        for text in [user, org, tier].compactMap({ $0 }) where !CallerClaims.isUsable(text) { return nil }
        return CallerClaims(user: user, org: org, tier: tier, keyID: id, scopes: scopes ?? [])
    }
}

package enum APIKeys {
    /// The hash in Redis, and the channel that tells of changes in it. On a cluster they lie with the rest of what nodes
    /// share.
    package static let redisKey = "sluice:keys"
    package static func redisKey(onCluster: Bool) -> String { onCluster ? "{sluice}:keys" : redisKey }

    /// What a key begins with, so that scanners for leaked secrets know it.
    private static let prefix = "slc_"

    /// A new key of 256 random bits.
    package static func make(_ random: [UInt64]) -> String {
        let digits = random.prefix(4).map { word in
            let text = String(word, radix: 16)
            return String(repeating: "0", count: 16 - text.count) + text
        }
        return prefix + digits.joined()
    }

    /// SHA-256 in hexadecimal: the field in Redis.
    package static func hash(_ key: [UInt8]) -> String {
        SHA256.hash(data: key).map { byte in (byte < 16 ? "0" : "") + String(byte, radix: 16) }.joined()
    }

    /// Names a key in logs, headers and limits: the first 64 bits of its hash.
    package static func id(ofHash hash: String) -> String { String(hash.prefix(16)) }
}
