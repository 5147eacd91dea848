import RedisClient

/// Why Redis has not done what it was asked: in its own words, and with what an operator can do about it.
struct Unanswered: Error, CustomStringConvertible {
    let failure: RedisFailure
    /// What it was asked; the first arguments are keys or, for `PUBLISH`, a channel. Empty where nothing was sent.
    let commands: [[String]]

    /// Whether it was never asked.
    var isUnsent: Bool { commands.isEmpty }

    /// Whether the server has said that it will not.
    var isRefusal: Bool { if case .refused = failure { true } else { false } }

    var description: String {
        guard case .refused(let text) = failure else { return "Redis does not answer: \(failure)" }
        let asked = commands.map { $0.prefix(2).joined(separator: " ") }
        let what = asked.isEmpty ? "this node" : Self.each(asked).joined(separator: ", ")
        return "Redis refuses \(what): \(text): \(remedy(text))"
    }

    private func remedy(_ text: String) -> String {
        let keys = Self.each(commands.filter { $0.count > 1 && $0[0] != "PUBLISH" }.map { $0[1] })
        switch failure.cause {
        case .permission:
            let rules = Self.each(rules(text, keys))
            if rules.isEmpty { return failure.cause.remedy }
            return "ACL SETUSER … \(rules.joined(separator: " ")), or all that docs/redis.md lists"
        case .wrongType, .other:
            if keys.isEmpty { return failure.cause.remedy }
            return "see what \(keys.joined(separator: ", ")) holds; what is not Sluice's own can be deleted"
        default: return failure.cause.remedy
        }
    }

    /// Whether a command, a key or a channel is not allowed stands in the text, in words that each version of Redis has of
    /// its own.
    private func rules(_ text: String, _ keys: [String]) -> [String] {
        if text.contains("channel") { return ["&sluice:*"] }
        if text.contains("key") { return keys.map { "~\($0)" } }
        return commands.map { "+\($0[0].lowercased())" }
    }

    private static func each(_ words: [String]) -> [String] {
        words.enumerated().filter { words.firstIndex(of: $1) == $0 }.map(\.element)
    }
}
