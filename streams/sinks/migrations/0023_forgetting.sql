-- What was delivered long ago is forgotten in small batches: found by age, and without looking through whole tables.

create index outbox_age on outbox (coalesce(sent_at, owed_at), notification_id) where state <> 'owed';
create index outbox_digested on outbox (digest_id) where digest_id is not null;
-- Deletes with its message.
create index outbox_alerts_message on outbox_alerts (notification_id);
create index notify_threads_age on notify_threads (opened_at, receiver, thread_key);
create index notify_groups_age on notify_groups (opened_at, group_key);
