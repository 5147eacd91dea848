import LinuxIO

/// The token of a listener for which none is configured: made anew with each start, and left where only programs of the
/// same user find it, so that an operator at the machine needs no ceremony and nobody else can write.
///
/// A process that takes over a listener has the token of the one before it: that one still answers, and goes on if this
/// one fails.
package struct AdminToken {
    let text: String
    private let path: String
    /// Whether it is that of a process before this one.
    private let isInherited: Bool

    private static func name(port: UInt16) -> String { "sluice-admin-\(port).token" }

    /// `nil` where no folder would keep it.
    static func leave(port: UInt16, inheriting: Bool) -> AdminToken? {
        if inheriting, let (text, path) = SecretFile.own(name: name(port: port)), isToken(text) {
            return AdminToken(text: text, path: path, isInherited: true)
        }
        let token = (0..<2).map { _ in
            let digits = String(SystemClock.random64(), radix: 16)
            return String(repeating: "0", count: 16 - digits.count) + digits
        }.joined()
        return SecretFile.write(token, name: name(port: port)).map {
            AdminToken(text: token, path: $0, isInherited: false)
        }
    }

    /// As they are made here.
    private static func isToken(_ text: String) -> Bool {
        text.utf8.count == 32 && text.utf8.allSatisfy { (0x30...0x39).contains($0) || (0x61...0x66).contains($0) }
    }

    /// The process ends. What another one goes by stays: the one that has replaced it, or the one that it could not replace.
    func processEnds(isReplaced: Bool, hasDrained: Bool) {
        if !isReplaced, hasDrained || !isInherited { remove() }
    }

    func remove() { SecretFile.remove(text, path: path) }

    /// What a node on this machine has left, if it is the caller's to read.
    package static func find(port: UInt16) -> String? { SecretFile.read(name: name(port: port)) }
}
