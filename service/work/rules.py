"""The rule of each command: what it needs and what it does, in the file that is named after what it holds."""

from service.executions.model import ExecutionEnding
from service.kernel.command import Rule
from service.work import rules_dead_letters as dead_letters
from service.work import rules_leases as leases
from service.work import rules_placing as placing
from service.work import rules_queues as queues
from service.work import rules_settling as settling
from service.work.claims import DUE, EXPIRED, READY
from service.work.model import (
    ClaimWork,
    CompleteWork,
    DeadLetterWork,
    DiscardDead,
    EnqueueWork,
    FailWork,
    PauseQueue,
    PromoteDue,
    ReclaimLeases,
    RedrivePage,
    ReleaseWork,
    RenewLease,
    RequeueDead,
    StartRedrive,
)

RULES = [
    Rule(EnqueueWork, placing.enqueue_work, placing.enqueue_keys),
    Rule(ClaimWork, leases.claim, chooser=READY),
    Rule(RenewLease, leases.renew, leases.item_alone),
    Rule(CompleteWork, settling.complete, settling.by_item),
    Rule(FailWork, settling.fail, settling.by_item),
    Rule(ReleaseWork, settling.release, settling.by_item),
    Rule(DeadLetterWork, settling.dead_letter, settling.dead_letter_keys),
    Rule(RequeueDead, dead_letters.requeue, dead_letters.requeue_keys),
    Rule(DiscardDead, dead_letters.discard, dead_letters.discard_keys),
    Rule(StartRedrive, dead_letters.start_redrive, dead_letters.redrive_keys),
    Rule(RedrivePage, dead_letters.redrive_page, dead_letters.redrive_keys, while_suspended=True),
    Rule(PauseQueue, queues.pause, queues.queue_key),
    Rule(ReclaimLeases, settling.reclaim, chooser=EXPIRED, while_suspended=True),
    Rule(PromoteDue, placing.promote, chooser=DUE, while_suspended=True),
]
LISTENERS = [(ExecutionEnding, settling.close_items)]
