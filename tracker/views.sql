-- The ledger for people who ask in SQL: views over the facts, and the indexes that make them quick (docs/ledger.md).
--
-- Invariants: a view reads facts and nothing else, so that it says the same of a run that goes on, has ended or was
-- killed; its columns are those of the page. No index holds `episode` or `progress` facts: those are most of a ledger,
-- and thousands a second. A condition on kinds that a query repeats word for word is how SQLite finds a partial index;
-- it is asked of every fact that is stored, and IN costs seven times what OR does (1.8 us a fact).
--
-- Statements end with ";" at the end of a line (`tracker/schema.py` runs them one by one).

CREATE INDEX facts_of_kind ON facts (kind, position) WHERE
    kind = 'template' OR kind = 'outcome' OR kind = 'mint' OR kind = 'evict' OR kind = 'given_up' OR kind = 'pool_evict' OR kind = 'update'
    OR kind = 'checkpoint' OR kind = 'life' OR kind = 'epoch' OR kind = 'run' OR kind = 'phase';

CREATE INDEX facts_of_task ON facts (json_extract(body, '$.task'), position)
    WHERE kind = 'outcome' OR kind = 'delivered' OR kind = 'rollout_error' OR kind = 'evict' OR kind = 'pool_evict';

CREATE VIEW templates AS SELECT
    min(position) AS position, time, source,
    json_extract(body, '$.policy') AS policy, json_extract(body, '$.template') AS template, json_extract(body, '$.parent') AS parent,
    json_extract(body, '$.round') AS round, json_extract(body, '$.candidate') AS candidate,
    json_extract(body, '$.version') AS version, json_extract(body, '$.text') AS text,
    json_extract(body, '$.critique') AS critique, json_extract(body, '$.placeholders') AS placeholders
FROM facts WHERE kind = 'template' GROUP BY json_extract(body, '$.policy'), json_extract(body, '$.template');

CREATE VIEW rewards AS SELECT
    position, time, source, policy, task, template, item, split, attempt, runner, reward, reason, failed, missing
FROM (SELECT
    -- The first outcome counts; one that measured nothing counts only until there is one that did.
    min(f.position + (json_extract(f.body, '$.missing') IS 1) * (1 << 62)), f.position AS position, f.time, f.source,
    json_extract(f.body, '$.policy') AS policy, json_extract(f.body, '$.task') AS task,
    json_extract(f.body, '$.result.template') AS template,
    json_extract(f.body, '$.result.item') AS item, json_extract(f.body, '$.result.split') AS split,
    json_extract(f.body, '$.result.attempt') AS attempt, json_extract(f.body, '$.result.runner') AS runner,
    json_extract(f.body, '$.result.reward') AS reward, json_extract(f.body, '$.result.reason') AS reason,
    json_extract(f.body, '$.result.failed') AS failed, json_extract(f.body, '$.result.missing') AS missing
FROM facts AS f
WHERE f.kind = 'outcome' AND json_extract(f.body, '$.result.do') = 'answer'
-- A policy's next life mints under other ids what it still wants: the same work, paid for once.
GROUP BY json_extract(f.body, '$.policy'), json_extract(f.body, '$.result.template'),
    json_extract(f.body, '$.result.split'), json_extract(f.body, '$.result.item'),
    coalesce(json_extract(f.body, '$.result.attempt'), json_extract(f.body, '$.task')));

CREATE VIEW tasks AS
WITH minted AS (
    SELECT min(f.position) AS position, f.time AS time, f.source AS source,
        json_extract(t.value, '$.task') AS task, json_extract(f.body, '$.policy') AS policy,
        json_extract(t.value, '$.label') AS label, json_extract(t.value, '$.body') AS body
    FROM facts AS f, json_each(f.body, '$.tasks') AS t WHERE f.kind = 'mint' AND t.type = 'object' GROUP BY json_extract(t.value, '$.task')
), followed AS (
    SELECT *,
        (SELECT count(*) FROM facts WHERE kind = 'outcome'
            AND json_extract(facts.body, '$.task') = minted.task) AS outcomes,
        (SELECT avg(json_extract(facts.body, '$.score')) FROM facts WHERE kind = 'outcome'
            AND json_extract(facts.body, '$.task') = minted.task) AS mean_score,
        (SELECT min(facts.position) FROM facts WHERE (kind = 'outcome' OR kind = 'delivered' OR kind = 'rollout_error' OR kind = 'evict' OR kind = 'pool_evict')
            AND json_extract(facts.body, '$.task') = minted.task
            AND CASE kind WHEN 'outcome' THEN json_extract(facts.body, '$.draw') IS NULL
                WHEN 'rollout_error' THEN json_extract(facts.body, '$.permanent')
                    AND json_extract(facts.body, '$.draw') IS NULL AND json_extract(facts.body, '$.tell') IS NOT 1
                ELSE 1 END) AS ended
    FROM minted
)
SELECT followed.position AS position, followed.time AS time, followed.source AS source, task, policy, label,
    followed.body AS body, outcomes, mean_score, ended,
    CASE facts.kind WHEN 'outcome' THEN 'done' WHEN 'rollout_error' THEN 'failed' WHEN 'evict' THEN 'evicted' WHEN 'pool_evict' THEN 'evicted'
        WHEN 'delivered' THEN CASE WHEN json_extract(facts.body, '$.given_up') THEN 'failed' ELSE 'done' END ELSE 'open' END AS state,
    CASE facts.kind WHEN 'outcome' THEN json_extract(facts.body, '$.score') END AS score
FROM followed LEFT JOIN facts ON facts.position = followed.ended;

CREATE VIEW labels AS SELECT
    label, count(*) AS tasks, sum(state = 'open') AS open, sum(state = 'evicted') AS evicted,
    sum(outcomes) AS outcomes, sum(mean_score * outcomes) / sum(outcomes) AS mean_score
FROM tasks WHERE label IS NOT NULL GROUP BY label;

CREATE VIEW evictions AS SELECT
    position, time, kind, json_extract(body, '$.task') AS task, json_extract(body, '$.label') AS label,
    json_extract(body, '$.reason') AS reason, json_extract(body, '$.note') AS note, json_extract(body, '$.raw') AS raw,
    json_extract(body, '$.mean') AS mean, json_extract(body, '$.outcomes') AS outcomes,
    json_extract(body, '$.draws') AS draws
FROM (
    SELECT * FROM facts WHERE kind = 'evict' UNION ALL SELECT * FROM facts WHERE kind = 'given_up'
    UNION ALL SELECT * FROM facts WHERE kind = 'pool_evict'
);

CREATE VIEW episodes AS SELECT
    position, time, source, json_extract(body, '$.length') AS length,
    (SELECT avg(value) FROM json_each(body, '$.returns')) AS return_mean,
    json_extract(body, '$.returns') AS returns, json_extract(body, '$.policies') AS policies,
    json_extract(body, '$.seconds') AS seconds
FROM facts WHERE kind = 'episode';

CREATE VIEW versions AS SELECT
    position, time, source, json_extract(body, '$.policy') AS policy, json_extract(body, '$.version[0]') AS life, json_extract(body, '$.version[1]') AS number,
    json_extract(body, '$.agent_steps') AS agent_steps, json_extract(body, '$.consumed') AS consumed,
    json_extract(body, '$.stale') AS stale, json_extract(body, '$.refused') AS refused,
    json_extract(body, '$.lost') AS lost, json_extract(body, '$.seconds') AS seconds
FROM facts WHERE kind = 'update';

CREATE VIEW checkpoints AS SELECT
    position, time, json_extract(body, '$.policy') AS policy, json_extract(body, '$.version[0]') AS life, json_extract(body, '$.version[1]') AS number,
    json_extract(body, '$.file') AS file, json_extract(body, '$.size') AS size,
    json_extract(body, '$.sha256') AS sha256, json_extract(body, '$.score') AS score,
    json_extract(body, '$.best') AS best
FROM facts WHERE kind = 'checkpoint';

CREATE VIEW losses AS SELECT
    facts.position AS position, facts.time AS time, json_extract(body, '$.policy') AS policy, json_extract(body, '$.version[0]') AS life, json_extract(body, '$.version[1]') AS number,
    loss.key AS loss, loss.value AS value
FROM facts, json_each(facts.body, '$.losses') AS loss WHERE facts.kind = 'update';
