// How a probe in turn ended, as it is kept in a hash and told on a channel.

import Membership

extension ProbeReport {
    private struct Wire: Codable {
        var service: String
        var backend: String
        var node: String
        var check: String
        var number: UInt64
        var good: Int
        var bad: Int
    }

    package var json: String {
        WireJSON.text(
            Wire(
                service: backend.service, backend: backend.url, node: node.text, check: BootID(check).description,
                number: record.number, good: record.good, bad: record.bad))
    }

    package init(json bytes: [UInt8]) throws(HealthFormatError) {
        let wire: Wire = try WireJSON.read(bytes)
        let streaks = 0...ProbeRecord.streakMax
        guard streaks.contains(wire.good), streaks.contains(wire.bad), wire.good == 0 || wire.bad == 0,
            wire.number <= ProbeRecord.numberMax, let check = BootID(hex: wire.check)?.value
        else { throw .malformed }
        node = try WireJSON.node(wire.node)
        backend = BackendKey(service: wire.service, url: wire.backend)
        self.check = check
        record = ProbeRecord(number: wire.number, good: wire.good, bad: wire.bad)
    }
}
