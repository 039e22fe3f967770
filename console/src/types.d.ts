/** What the API answers (docs/api.md, openapi.json); only what the console reads. */

export interface Money { dollars: string; unpriced_tokens: number; uncounted_calls: number; exact: boolean }
export interface Opened { by: string; until: string }
export interface Reason { code: string; message: string }

export interface AssetSummary {
  id: string; bucket: string; key: string; state: string; reason: Reason | null; kind: string | null; media_type: string | null;
  task: string | null; category: string | null; tier: string | null; text: string | null; alt_text: string | null; tags: string[];
  language: string | null; safety: string | null; confidence: number | null; model: string | null; reported_model: string | null;
  source: string | null; reviewed: string | null; reviewed_at: string | null; size: number; received_at: string; updated_at: string;
  completed_at: string | null; cost: Money | null; thumbnail: string | null; opened_by: Opened | null; text_cut?: boolean; recaptioning?: boolean; etag: string;
}

export interface Segment { start_s?: number | null; end_s?: number | null; text: string; speaker?: string }
export interface Block { text: string; language?: string; role?: string }
export interface Axis { label?: string; unit?: string; min?: number | null; max?: number | null; scale?: string }
export interface Point { x: string; y: number | null }
export interface Series { name?: string; points: Point[]; read?: string }
export interface Thing { name: string; count?: number | null; position?: string; details?: string }

export interface Result {
  text: string; language: string; task: string; style?: string; tags?: string[]; safety?: string | null; confidence?: number | null;
  data?: Record<string, any>; left_out?: string[];
}

export interface Attempt {
  model?: string; endpoint?: string; outcome?: string; outcomes?: Record<string, number>; calls?: number; role?: string; reason?: string;
  latency_ms?: number; prompt_tokens?: number; completion_tokens?: number; cost: Money; detail?: string | null; tier?: string | null; status?: number | null;
  started_at?: string; reported_model?: string; [more: string]: any;
}

export interface Comparison { kind: string; hash_distance?: number | null; why?: string }

export interface Copy {
  id: string; key: string; thumbnail?: string | null; comparison?: Comparison | null; at?: string;
}

export interface Asset extends AssetSummary {
  result: Result | null; provenance: Record<string, any> | null; attempts: Attempt[];
  suggestion: { result: Result; source: string; at: string; replaced?: boolean } | null;
  human: { action: string; text: string; at: string; language?: string } | null;
  media_url: string | null; tracks: { kind: string; format: string; url: string }[];
  timeline: { at: string; what: string; detail?: string; call?: Attempt | null }[];
  copies: Copy[]; more_copies?: boolean; copied_from: Copy | null; model_text: string | null;
}

export interface Offer { id: string; model: string; cost: Money | null; most: string | null; unpriced: string[] }

export interface Page { items: AssetSummary[]; cursor: string | null; live?: string | null }
export interface ReviewPage extends Page { population: number | null; margin_of_error: number | null }

export interface QualityCell {
  id: string; category: string; model: string; prompt_version: string; task?: string; experiment?: string | null; arm?: string | null; accepted: number; edited: number; share: number | null;
  low: number | null; high: number | null; flagged: boolean;
}
export interface Quality { cells: QualityCell[]; minimum: number; line: number; days?: number }

export interface Problem { type?: string; title?: string; status: number; detail?: string; current?: Asset; etag?: string; [more: string]: any }
